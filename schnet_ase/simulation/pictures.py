"""Figures of dynamics and of geometry optimizations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.interpolate import PchipInterpolator

from schnet_ase.geometry.arrays import Floats
from schnet_ase.output.figures import save_figure

if TYPE_CHECKING:
    from schnet_ase.simulation.many import Outcome
    from schnet_ase.simulation.neb import ReactionPath
    from schnet_ase.simulation.vibrations import Vibrations


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


def relaxations(
    outcomes: Sequence[Outcome], above_lowest: Sequence[float], threshold: float | None, path: Path
) -> None:
    """Plot the relaxed energies above the lowest of the same formula (meV), and the largest ``forces_deviation`` at the
    end, against the number of the structure.

    Half-widths of calibrated energies are error bars. Crosses at the lower edge are structures that failed. The
    `threshold` (eV/Å) of the ensemble's calibration is drawn as a line.
    """
    known = [not np.isnan(outcome.max_forces_deviation_eV_per_A) for outcome in outcomes]
    figure = Figure(figsize=(8, 5.2 if any(known) else 3.2), layout="constrained")
    panels = figure.subplots(2 if any(known) else 1, 1, sharex=True, squeeze=False)[:, 0]
    formulas = sorted({outcome.formula for outcome in outcomes if outcome.status == "relaxed"})
    for formula in formulas:
        chosen = [k for k, o in enumerate(outcomes) if o.formula == formula and o.status == "relaxed"]
        widths = np.nan_to_num([1000.0 * outcomes[k].energy_uncertainty_eV for k in chosen])
        heights = [1000.0 * above_lowest[k] for k in chosen]
        panels[0].errorbar(chosen, heights, widths, fmt="o", ms=4, lw=0.8, capsize=2, label=formula)
        if any(known):
            panels[1].plot(chosen, [outcomes[k].max_forces_deviation_eV_per_A for k in chosen], "o", ms=4)
    failed = [k for k, outcome in enumerate(outcomes) if outcome.status != "relaxed"]
    if failed:
        edge = panels[0].get_xaxis_transform()
        panels[0].plot(
            failed, [0.03] * len(failed), "x", color="tab:red", transform=edge, label="failed", clip_on=False
        )
    if len(formulas) + bool(failed) <= 12:
        panels[0].legend(frameon=False, ncols=4)
    panels[0].set_ylabel("energy − lowest of\nthe same formula (meV)")
    if any(known):
        panels[1].set_ylabel("forces_deviation,\nlargest (eV/Å)")
        if threshold is not None:
            panels[1].axhline(threshold, color="0.5", lw=0.8, ls="--", label="threshold")
            panels[1].legend(frameon=False)
        panels[1].set_ylim(bottom=0.0)
    panels[-1].set_xlabel("number of the structure")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    save_figure(figure, path)


def reaction_path(found: ReactionPath, path: Path) -> None:
    """Plot the energy (meV) and the largest ``forces_deviation`` (eV/Å) along a path, with the spread of the members.

    The band around the energy is one standard deviation; flagged images are triangles.
    """
    columns = np.array([image[:5] for image in found.images]).T
    length, energy, spread, deviation = columns[0], 1000.0 * columns[1], 1000.0 * columns[2], columns[4]
    several = not np.isnan(deviation).any()
    figure = Figure(figsize=(8, 5.2 if several else 3.6), layout="constrained")
    panels = figure.subplots(2 if several else 1, 1, sharex=True, squeeze=False)[:, 0]
    curve = np.linspace(0.0, length[-1], 200)
    panels[0].plot(curve, PchipInterpolator(length, energy)(curve), color="tab:blue", lw=1.0)
    panels[0].plot(length, energy, "o", color="tab:blue", ms=5)
    if several:
        panels[0].fill_between(length, energy - spread, energy + spread, color="tab:blue", alpha=0.2, lw=0)
        panels[1].plot(length, deviation, "o-", color="tab:purple", ms=4, lw=0.8)
        flagged = np.array([image.flagged for image in found.images])
        if flagged.any():
            panels[1].plot(length[flagged], deviation[flagged], "v", color="tab:red", ms=7, label="flagged")
        if not np.isnan(found.threshold):
            panels[1].axhline(found.threshold, color="0.5", lw=0.8, ls="--", label="threshold")
            panels[1].legend(frameon=False, ncols=2)
        panels[1].set_ylabel("forces_deviation,\nlargest (eV/Å)")
        panels[1].set_ylim(bottom=0.0)
    top = found.images[found.saddle]
    panels[0].plot([top.distance_A], [1000.0 * top.energy_eV], "o", color="tab:red", ms=6, label="saddle point")
    panels[0].legend(frameon=False)
    panels[0].set_ylabel("energy − first end (meV)")
    panels[-1].set_xlabel("length of the path (Å)")
    save_figure(figure, path)


def spectrum(found: Vibrations, path: Path) -> None:
    """Plot the wavenumbers (1/cm) of vibrations as lines, and their spread over the members.

    Imaginary ones are red and to the left of 0.
    """
    wavenumbers = np.array([mode.wavenumber for mode in found.modes])
    spreads = np.array([mode.spread for mode in found.modes])
    several = not np.isnan(spreads).any()
    figure = Figure(figsize=(8, 4.2 if several else 2.6), layout="constrained")
    panels = figure.subplots(2 if several else 1, 1, sharex=True, squeeze=False)[:, 0]
    for chosen, color, label in ((wavenumbers > 0, "tab:blue", "real"), (wavenumbers < 0, "tab:red", "imaginary")):
        if chosen.any():
            panels[0].vlines(wavenumbers[chosen], 0.0, 1.0, color=color, lw=1.2, label=label)
            if several:
                panels[1].plot(wavenumbers[chosen], spreads[chosen], "o", color=color, ms=4)
    panels[0].set(yticks=[], ylim=(0.0, 1.3))
    panels[0].legend(frameon=False, ncols=2, loc="upper center")
    if several:
        panels[1].set_ylabel("spread over\nmembers (1/cm)")
        panels[1].set_ylim(bottom=0.0)
    panels[-1].set_xlabel("wavenumber (1/cm)")
    save_figure(figure, path)
