"""A picture of a data set in four panels: energies, forces, distances, and the energies along the file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from schnet_ase.data.summary import words
from schnet_ase.data.summary.distances import BINS, REACH
from schnet_ase.data.summary.summary import Summary
from schnet_ase.geometry.arrays import Floats
from schnet_ase.output.figures import save_figure

MOST_CURVES = 6
"""Largest number of elements, or of pairs of elements, in a panel; the most frequent ones are drawn."""
_MARGIN = 0.05


def draw(summary: Summary, path: str | os.PathLike[str]) -> None:
    """Draw the summary as a PNG, atomically; axes show the usual range, and outliers are marked at their edges."""
    figure = Figure(figsize=(11, 7.4), layout="constrained")
    (energies, forces), (lengths, along) = figure.subplots(2, 2)
    figure.suptitle(f"{summary.dataset.source}: {words.count(len(summary.dataset.frames), 'frame')}")
    _energies(energies, summary)
    _forces(forces, summary)
    _lengths(lengths, summary)
    _along(along, summary)
    save_figure(figure, Path(path))


def _energies(axes: Axes, summary: Summary) -> None:
    left = summary.residual
    known = np.isfinite(left)
    usual = _usual(left, known, np.isin(np.arange(len(left)), summary.energy_outliers))
    axes.set(xlabel="energy − fit to compositions (eV/atom)", ylabel="frames")
    if usual is None:
        _empty(axes, "no energies to compare")
        return
    inside = known & (left >= usual[0]) & (left <= usual[1])
    axes.hist(left[inside], bins=min(60, max(5, int(np.sqrt(inside.sum())))), range=usual, color="tab:orange")
    _outside(axes, int(known.sum() - inside.sum()), "frame")


def _forces(axes: Axes, summary: Summary) -> None:
    flat = summary.flat
    norms = flat.force_norms
    usual = _usual(
        summary.largest_force,
        np.isfinite(summary.largest_force),
        np.isin(np.arange(len(flat.index)), summary.force_outliers),
    )
    axes.set(xlabel="force on an atom (eV/Å)", ylabel="atoms")
    if usual is None:
        _empty(axes, "no forces")
        return
    known = np.isfinite(norms)
    made_of = summary.compositions
    frequent = made_of.elements[np.argsort(-(made_of.frames @ made_of.counts), kind="stable")][:MOST_CURVES]
    for z in frequent:
        of_element = norms[known & (flat.numbers == z) & (norms <= usual[1])]
        if len(of_element):
            axes.hist(of_element, bins=80, range=(0.0, usual[1]), histtype="step", label=chemical_symbols[z])
    axes.set_yscale("log")
    axes.legend(frameon=False)
    _outside(axes, int((norms[known] > usual[1]).sum()), "atom")


def _lengths(axes: Axes, summary: Summary) -> None:
    near = summary.distances
    axes.set(xlabel="distance (Å)", ylabel="pairs per volume of shell (highest: 1)", xlim=(0.0, REACH), ylim=(0.0, 1.1))
    if not near.histogram:
        _empty(axes, f"no pairs within {REACH:g} Å")
        return
    edges = np.linspace(0.0, REACH, BINS + 1)
    density = {pair: count / np.diff(edges**3) for pair, count in near.histogram.items()}
    # The pairs with the highest density are bonds rather than atoms farther away.
    for n, pair in enumerate(sorted(density, key=lambda pair: -float(density[pair].max()))[:MOST_CURVES]):
        axes.stairs(density[pair] / density[pair].max(), edges, color=f"C{n}", label=words.pair(pair))
        axes.axvline(covalent_radii[list(pair)].sum(), color=f"C{n}", lw=0.8, ls=":")
    axes.plot([], [], color="0.5", lw=0.8, ls=":", label="covalent radii")
    axes.legend(frameon=False, fontsize=8, loc="upper left", handlelength=1.2, borderaxespad=0.2)  # no bonds there


def _along(axes: Axes, summary: Summary) -> None:
    values, outliers, name = summary.residual, summary.energy_outliers, "energy − fit to compositions (eV/atom)"
    if not np.isfinite(values).any():
        values, outliers, name = summary.largest_force, summary.force_outliers, "largest force (eV/Å)"
    axes.set(xlabel="frame in the file", ylabel=name)
    known = np.isfinite(values)
    far = np.isin(np.arange(len(values)), outliers)
    usual = _usual(values, known, far)
    if usual is None:
        _empty(axes, "no labels to compare")
        return
    size = 12.0 if known.sum() < 300 else 4.0
    index = summary.flat.index
    plain = known & ~far
    axes.scatter(index[plain], values[plain], s=size, color="tab:blue", edgecolors="none", alpha=0.6, rasterized=True)
    if len(outliers):
        width = usual[1] - usual[0]
        low, high = usual[0] - _MARGIN * width, usual[1] + _MARGIN * width
        held = np.clip(values[outliers], low, high)
        axes.plot(index[outliers], held, "v", color="tab:red", label="outliers, at the edge where beyond it")
        axes.set_ylim(low - _MARGIN * width, high + 2.0 * _MARGIN * width)
        axes.legend(frameon=False, loc="upper right")


def _usual(values: Floats, known: np.ndarray, far: np.ndarray) -> tuple[float, float] | None:
    """Return the range of the values that are no outliers, or of all values if all are outliers."""
    chosen = values[known & ~far] if (known & ~far).any() else values[known]
    if not len(chosen):
        return None
    low, high = float(chosen.min()), float(chosen.max())
    least = max(1e-6, 1e-6 * abs(high))
    return (low, high) if high - low > least else (low - least, high + least)


def _outside(axes: Axes, n: int, what: str) -> None:
    if n:
        text = f"{words.count(n, what)} beyond the axis"
        axes.text(0.98, 0.6, text, ha="right", transform=axes.transAxes, color="tab:red")


def _empty(axes: Axes, text: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", transform=axes.transAxes)
