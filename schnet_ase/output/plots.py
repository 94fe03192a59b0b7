"""The pictures the package draws, but for those of `parity`. matplotlib is loaded with them; no window is opened."""

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

from schnet_ase.geometry.arrays import Floats
from schnet_ase.output.files import FORMATS, atomic_write

if TYPE_CHECKING:
    from schnet_ase.learn.audit import Flagged, Generation
    from schnet_ase.training.tune_config import SearchRange
    from schnet_ase.tune.trials import Trial


def learning_curve(
    steps: Sequence[int],
    training_loss: Sequence[float],
    validation_loss: Sequence[float],
    energy_mae: Sequence[float],
    force_mae: Sequence[float],
    stress_mae: Sequence[float],
    path: Path,
) -> None:
    """Losses, and validation errors in meV, meV/Å and meV/Å³, against the step."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.semilogy(steps, training_loss, label="training", color="0.6")
    left.semilogy(steps, validation_loss, label="validation", color="tab:blue")
    left.set(xlabel="step", ylabel="loss (of errors in eV and eV/Å)")
    left.legend(frameon=False)
    for values, label, color in (
        (energy_mae, "energy MAE (meV)", "tab:orange"),
        (force_mae, "force MAE (meV/Å)", "tab:green"),
        (stress_mae, "stress MAE (meV/Å³)", "tab:purple"),
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


def save_figure(figure: Figure, path: Path) -> None:
    """In the format of the path's suffix, one of `FORMATS`, else as PNG; atomically."""
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    suffix = path.suffix.lower()
    figure.savefig(content, format=suffix[1:] if suffix in FORMATS else "png", dpi=150)
    atomic_write(path, content.getvalue())
