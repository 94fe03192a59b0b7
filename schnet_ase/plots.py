"""Every picture the package draws. matplotlib is loaded when one is, and no window is ever opened."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from schnet_ase.files import FORMATS, atomic_write
from schnet_ase.neighbors import Floats

if TYPE_CHECKING:
    from schnet_ase.learn.audit import Flagged, Generation
    from schnet_ase.reliability import Quantity, Reliability
    from schnet_ase.training.trials import Trial
    from schnet_ase.training.tune_config import SearchRange


def learning_curve(
    steps: Sequence[int],
    training_loss: Sequence[float],
    validation_loss: Sequence[float],
    energy_mae: Sequence[float],
    force_mae: Sequence[float],
    path: Path,
) -> None:
    """Losses, and validation errors in meV and meV/Å, against the step."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.semilogy(steps, training_loss, label="training", color="0.6")
    left.semilogy(steps, validation_loss, label="validation", color="tab:blue")
    left.set(xlabel="step", ylabel="loss (of errors in eV and eV/Å)")
    left.legend(frameon=False)
    for values, label, color in (
        (energy_mae, "energy MAE (meV)", "tab:orange"),
        (force_mae, "force MAE (meV/Å)", "tab:green"),
    ):
        if np.isfinite(values).any():
            right.semilogy(steps, values, label=label, color=color)
    right.set(xlabel="step", ylabel="validation error")
    right.legend(frameon=False)
    save_figure(figure, path)


def learning(generations: Sequence[Generation], flags: Sequence[Flagged], path: Path) -> None:
    """Learning on the fly: errors against labels, and how far the dynamics got by each flag."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    labels = [g.labels for g in generations]
    left.semilogy(labels, [1000.0 * g.force_mae for g in generations], "o-", color="tab:green", label="all, held out")
    for before, marker, label in (
        ([g.new_force_mae_before for g in generations], "v", "newest labels, before"),
        ([g.new_force_mae_after for g in generations], "^", "newest labels, after, held out"),
    ):
        points = [(n, 1000.0 * value) for n, value in zip(labels, before, strict=True) if value is not None]
        if points:
            left.plot(*zip(*points, strict=True), marker, color="0.5", ms=4, mfc="none", label=label)
    left.set(xlabel="labels", ylabel="force MAE (meV/Å)")
    left.legend(frameon=False)
    if flags:
        labels_then = [next(g.labels for g in generations if g.generation == f.generation) for f in flags]
        right.plot([f.time_fs / 1000.0 for f in flags], labels_then, "v", color="tab:red")
    right.set(xlabel="time of the flag (ps)", ylabel="labels by then")
    save_figure(figure, path)


def parity(
    reference_energy: Floats | None,
    energy: Floats,
    reference_forces: Floats | None,
    forces: Floats,
    title: str,
    path: Path,
) -> None:
    """Predicted against reference energies (eV, less the mean reference) and force components (eV/Å)."""
    figure = Figure(figsize=(9, 4.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(title)
    _parity_energy(left, reference_energy, energy)
    _parity_forces(right, reference_forces, forces)
    save_figure(figure, path)


def parity_and_uncertainty(
    reference_energy: Floats | None,
    energy: Floats,
    reference_forces: Floats | None,
    forces: Floats,
    reliability: Reliability,
    title: str,
    path: Path,
) -> None:
    """`parity`, and beside it what the spread of an ensemble says about the error: pictures and the table."""
    figure = Figure(figsize=(16, 8.4), layout="constrained")
    upper = figure.add_gridspec(2, 4)
    panels = [[figure.add_subplot(upper[row, column]) for column in range(4 if row == 0 else 2)] for row in range(2)]
    figure.suptitle(title)
    _parity_energy(panels[0][0], reference_energy, energy)
    _parity_forces(panels[0][1], reference_forces, forces)
    quantities = (
        ("energy", "meV", reliability.energy, "tab:orange"),
        ("force", "meV/Å", reliability.forces, "tab:green"),
    )
    curves, conditional = panels[0][2:]
    for axes, (name, unit, quantity, color) in zip(panels[1], quantities, strict=True):
        if quantity is None:
            _no_labels(axes)
            continue
        _spread_and_error(axes, quantity, color)
        factor = " × factor of the element" if name == "force" and quantity.conformal is not None else ""
        axes.set(xlabel=f"{name}: spread over members{factor} ({unit})", ylabel=f"|error| ({unit})")
        levels = np.linspace(0.0, 1.0, len(quantity.raw.curve))
        curves.plot(levels, quantity.raw.curve, color=color, ls=":", label=f"{name}, raw spread")
        if quantity.conformal is not None:
            curves.plot(levels, quantity.conformal.curve, color=color, label=f"{name}, conformal")
        _coverage_by_spread(conditional, quantity, color, name)
    curves.plot([0, 1], [0, 1], color="0.5", lw=0.8, zorder=0)
    curves.set(xlabel="expected coverage", ylabel="observed coverage", aspect="equal")
    conditional.axhline(0.9, color="0.5", lw=0.8, zorder=0)
    conditional.set(xlabel="tenth of the frames or atoms, by spread", ylabel="coverage at 90 %", ylim=(0.0, 1.02))
    for axes in (curves, conditional):
        axes.legend(frameon=False, fontsize=8)
    table = figure.add_subplot(upper[1, 2:])
    table.set_axis_off()
    table.text(
        0.0,
        0.5,
        "\n".join(reliability.lines()),
        family="monospace",
        fontsize=7.5,
        va="center",
        transform=table.transAxes,
    )
    save_figure(figure, path)


def molecular_dynamics(
    time: Floats,
    total: Floats,
    potential: Floats,
    temperature: Floats,
    deviation: Floats | None,
    path: Path,
    *,
    threshold: float | None = None,
    flags: Sequence[tuple[float, float]] = (),
) -> None:
    """Energies (eV), temperature (K) and largest force deviation (eV/Å) of a run against time (ps).

    A monitor's `threshold` (eV/Å) is drawn as a line, and its `flags`, (time, deviation) each, as points.
    """
    figure = Figure(figsize=(8, 7 if deviation is not None else 5.2), layout="constrained")
    panels = figure.subplots(2 if deviation is None else 3, 1, sharex=True)
    panels[0].plot(time, potential - total[0], label="potential", color="tab:blue", lw=0.8)
    panels[0].plot(time, total - total[0], label="total", color="black", lw=1.0)
    panels[0].set_ylabel("energy − initial total (eV)")
    panels[0].legend(frameon=False, ncols=2)
    panels[1].plot(time, temperature, color="tab:red", lw=0.8)
    panels[1].set_ylabel("temperature (K)")
    if deviation is not None:
        panels[2].plot(time, deviation, color="tab:purple", lw=0.8)
        panels[2].set_ylabel("forces_deviation,\nlargest (eV/Å)")
        if threshold is not None:
            panels[2].axhline(threshold, color="0.5", lw=0.8, ls="--", label="threshold")
            panels[2].plot(*np.reshape(flags, (-1, 2)).T, "v", color="tab:red", ms=6, label="flagged")
            panels[2].legend(frameon=False, ncols=2)
        panels[2].set_ylim(bottom=0.0)
    panels[-1].set_xlabel("time (ps)")
    save_figure(figure, path)


def optimization(energy: Floats, largest_force: Floats, fmax: float, path: Path) -> None:
    """Energy above the last (meV) and largest force (eV/Å) of each step of an optimization."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(1000.0 * (energy - energy[-1]), color="tab:blue", marker=".", ms=4)
    left.set(xlabel="step", ylabel="energy − final (meV)")
    right.plot(largest_force, color="tab:green", marker=".", ms=4)
    right.axhline(fmax, color="0.5", lw=0.8, ls="--")
    right.set(xlabel="step", ylabel="largest force (eV/Å)", yscale="log")  # last: forces may all be zero
    save_figure(figure, path)


def tuning(
    trials: Sequence[Trial], search: Mapping[str, SearchRange], importances: Mapping[str, float], path: Path
) -> None:
    """A search: losses in the order of the trials and against each key, and the keys' importances."""
    columns = min(4, 2 + len(search))
    rows = -(-(2 + len(search)) // columns)
    figure = Figure(figsize=(3.6 * columns, 0.3 + 3.2 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns).flat)
    history, importance = panels[:2]
    _losses(history, trials, [t.number for t in trials])
    best, so_far = math.inf, []
    for t in trials:
        if t.state == "complete" and t.best is not None:
            best = min(best, t.best.validation_loss)
        so_far.append(best)
    history.step([t.number for t in trials], so_far, where="post", color="tab:blue", lw=1.0, label="best so far")
    history.set(xlabel="trial")
    figure.legend(*history.get_legend_handles_labels(), loc="outside upper center", frameon=False, ncols=3)
    importance.barh(list(importances)[::-1], list(importances.values())[::-1], height=0.5, color="tab:green")
    importance.set(xlabel="importance (PED-ANOVA)", xlim=(0.0, 1.0))
    for axes, (key, values) in zip(panels[2:], search.items(), strict=False):
        if values.choices is None:
            _losses(axes, trials, [float(t.values[key]) for t in trials])
            axes.set_xscale("log" if values.log else "linear")
        else:
            _losses(axes, trials, [values.choices.index(t.values[key]) for t in trials])
            axes.set_xticks(range(len(values.choices)), [str(choice) for choice in values.choices])
        axes.set(xlabel=key)
    for axes in panels[2 + len(search) :]:
        axes.set_axis_off()
    save_figure(figure, path)


def _losses(axes: Axes, trials: Sequence[Trial], x: Sequence[float]) -> None:
    """Smallest validation losses of trials, those that were ended early apart."""
    for early, marker, color, label in ((True, "x", "0.6", "pruned or failed"), (False, "o", "tab:blue", "complete")):
        chosen = [
            (at, t.best.validation_loss)
            for at, t in zip(x, trials, strict=True)
            if t.best is not None and (t.state != "complete") == early
        ]
        axes.plot(*zip(*chosen, strict=True) if chosen else ((), ()), marker, color=color, ms=4, label=label)
    axes.set(yscale="log", ylabel="validation loss (eV²/Å²)")


def _parity_energy(axes: Axes, reference: Floats | None, energy: Floats) -> None:
    if reference is None:
        _no_labels(axes)
        return
    offset = reference.mean()
    _scatter(axes, reference - offset, energy - offset, "tab:orange")
    axes.set(xlabel="reference energy − mean (eV)", ylabel="predicted energy − mean (eV)")


def _parity_forces(axes: Axes, reference: Floats | None, forces: Floats) -> None:
    if reference is None:
        _no_labels(axes)
        return
    _scatter(axes, reference.ravel(), forces.ravel(), "tab:green")
    axes.set(xlabel="reference force component (eV/Å)", ylabel="predicted (eV/Å)")


def _no_labels(axes: Axes) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, "no labels", ha="center", transform=axes.transAxes)


def _spread_and_error(axes: Axes, quantity: Quantity, color: str) -> None:
    """In meV or meV/Å, with the half-width at 90 %."""
    some = (quantity.by_element > 0) & (quantity.error > 0)
    spread, error = 1000.0 * quantity.by_element[some], 1000.0 * quantity.error[some]
    axes.scatter(spread, error, s=3, alpha=0.4, color=color, edgecolors="none", rasterized=True)
    if len(spread):
        along = np.geomspace(spread.min(), spread.max(), 100)
        width = 1000.0 * quantity.predictor.half_width(along / 1000.0, 0.9)
        axes.plot(along, width, color="black", lw=1.0, label="half-width at 90 %")
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):  # short ones, which do not lie on one another
            axis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
        axes.legend(frameon=False, fontsize=8)


def _coverage_by_spread(axes: Axes, quantity: Quantity, color: str, name: str) -> None:
    """Coverage of the half-widths at 90 % in each tenth of the spread."""
    held = quantity.error <= quantity.predictor.half_width(quantity.by_element, 0.9)
    tenths = [part for part in np.array_split(np.argsort(quantity.by_element, kind="stable"), 10) if len(part)]
    axes.plot(np.arange(1, len(tenths) + 1), [held[t].mean() for t in tenths], color=color, marker=".", label=name)


def _scatter(axes: Axes, x: Floats, y: Floats, color: str) -> None:
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    axes.plot([low, high], [low, high], color="0.5", lw=0.8, zorder=0)
    axes.scatter(x, y, s=3, alpha=0.4, color=color, edgecolors="none", rasterized=True)
    axes.set_aspect("equal")


def save_figure(figure: Figure, path: Path) -> None:
    """In the format of the path's suffix, one of `FORMATS`, else as PNG; atomically."""
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    suffix = path.suffix.lower()
    figure.savefig(content, format=suffix[1:] if suffix in FORMATS else "png", dpi=150)
    atomic_write(path, content.getvalue())
