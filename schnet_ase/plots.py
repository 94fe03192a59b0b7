"""Every picture the package draws. matplotlib is loaded when one is, and no window is ever opened."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from schnet_ase.files import atomic_write
from schnet_ase.neighbors import Floats


def learning_curve(
    steps: Sequence[int],
    training_loss: Sequence[float],
    validation_loss: Sequence[float],
    energy_mae: Sequence[float],
    force_mae: Sequence[float],
    path: Path,
) -> None:
    """Losses in (eV/Å)², and validation errors in meV and meV/Å, against the step."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.semilogy(steps, training_loss, label="training", color="0.6")
    left.semilogy(steps, validation_loss, label="validation", color="tab:blue")
    left.set(xlabel="step", ylabel="loss (eV²/Å²)")
    left.legend(frameon=False)
    for values, label, color in (
        (energy_mae, "energy MAE (meV)", "tab:orange"),
        (force_mae, "force MAE (meV/Å)", "tab:green"),
    ):
        if np.isfinite(values).any():
            right.semilogy(steps, values, label=label, color=color)
    right.set(xlabel="step", ylabel="validation error")
    right.legend(frameon=False)
    _save(figure, path)


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
    if reference_energy is not None:
        offset = reference_energy.mean()
        _scatter(left, reference_energy - offset, energy - offset, "tab:orange")
        left.set(xlabel="reference energy − mean (eV)", ylabel="predicted energy − mean (eV)")
    if reference_forces is not None:
        _scatter(right, reference_forces.ravel(), forces.ravel(), "tab:green")
        right.set(xlabel="reference force component (eV/Å)", ylabel="predicted (eV/Å)")
    for axes, labels in ((left, reference_energy), (right, reference_forces)):
        if labels is None:
            axes.set_axis_off()
            axes.text(0.5, 0.5, "no labels", ha="center", transform=axes.transAxes)
    _save(figure, path)


def molecular_dynamics(
    time: Floats, total: Floats, potential: Floats, temperature: Floats, deviation: Floats | None, path: Path
) -> None:
    """Energies (eV), temperature (K) and largest force deviation (eV/Å) of a run against time (ps)."""
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
        panels[2].set_ylim(bottom=0.0)
    panels[-1].set_xlabel("time (ps)")
    _save(figure, path)


def optimization(energy: Floats, largest_force: Floats, fmax: float, path: Path) -> None:
    """Energy above the last (meV) and largest force (eV/Å) of each step of an optimization."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(1000.0 * (energy - energy[-1]), color="tab:blue", marker=".", ms=4)
    left.set(xlabel="step", ylabel="energy − final (meV)")
    right.semilogy(largest_force, color="tab:green", marker=".", ms=4)
    right.axhline(fmax, color="0.5", lw=0.8, ls="--")
    right.set(xlabel="step", ylabel="largest force (eV/Å)")
    _save(figure, path)


def _scatter(axes: Axes, x: Floats, y: Floats, color: str) -> None:
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    axes.plot([low, high], [low, high], color="0.5", lw=0.8, zorder=0)
    axes.scatter(x, y, s=3, alpha=0.4, color=color, edgecolors="none", rasterized=True)
    axes.set_aspect("equal")


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    atomic_write(path, content.getvalue())
