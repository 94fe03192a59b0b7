"""Figures of dynamics and of geometry optimizations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from schnet_ase.geometry.arrays import Floats
from schnet_ase.output.figures import save_figure


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
    """Plot energies (eV), temperature (K) and largest force deviation (eV/Å) of a run against time (ps).

    The `threshold` (eV/Å) of a monitor is drawn as a line, and its `flags`, pairs of time and deviation, as points.
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
    """Plot the energy above the final one (meV) and the largest force (eV/Å) at each step of an optimization."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(1000.0 * (energy - energy[-1]), color="tab:blue", marker=".", ms=4)
    left.set(xlabel="step", ylabel="energy − final (meV)")
    right.plot(largest_force, color="tab:green", marker=".", ms=4)
    right.axhline(fmax, color="0.5", lw=0.8, ls="--")
    right.set(xlabel="step", ylabel="largest force (eV/Å)", yscale="log")  # last: forces may all be zero
    save_figure(figure, path)
