"""Figures of predictions against reference labels, and of errors against the spread of an ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from schnet_ase.geometry.arrays import Floats
from schnet_ase.output.figures import save_figure
from schnet_ase.uncertainty.metrics import GPA

if TYPE_CHECKING:
    from schnet_ase.evaluation.reliability import Quantity, Reliability


class Comparison(NamedTuple):
    """Predictions and reference labels of some frames.

    Labels are NaN for a frame without them, and None if no frame has them.
    """

    reference_energy: Floats | None
    energy: Floats
    """(B,) eV, as `reference_energy`."""
    reference_forces: Floats | None
    forces: Floats
    """(A, 3) eV/Å, as `reference_forces`."""
    reference_stress: Floats | None
    stress: Floats
    """(B, 6) eV/Å³, as `reference_stress`."""


def parity(compared: Comparison, title: str, path: Path) -> None:
    """Plot predicted against reference energies (eV, less the mean), force components (eV/Å) and stresses (GPa)."""
    columns = 2 if compared.reference_stress is None else 3
    figure = Figure(figsize=(4.5 * columns, 4.3), layout="constrained")
    panels = figure.subplots(1, columns)
    figure.suptitle(title)
    _parity_energy(panels[0], compared.reference_energy, compared.energy)
    _parity_components(panels[1], compared.reference_forces, compared.forces, "force component (eV/Å)", "tab:green")
    if compared.reference_stress is not None:
        _parity_stress(panels[2], compared.reference_stress, compared.stress)
    save_figure(figure, path)


def parity_and_uncertainty(compared: Comparison, reliability: Reliability, title: str, path: Path) -> None:
    """Plot what `parity` does, together with the reliability of the ensemble's spread as plots and a table."""
    columns = 4 if compared.reference_stress is None else 5
    figure = Figure(figsize=(4 * columns, 8.4), layout="constrained")
    upper = figure.add_gridspec(2, columns)
    panels = [[figure.add_subplot(upper[row, column]) for column in range(4 if row == 0 else 2)] for row in range(2)]
    figure.suptitle(title)
    _parity_energy(panels[0][0], compared.reference_energy, compared.energy)
    _parity_components(panels[0][1], compared.reference_forces, compared.forces, "force component (eV/Å)", "tab:green")
    if compared.reference_stress is not None:
        _parity_stress(figure.add_subplot(upper[0, 4]), compared.reference_stress, compared.stress)
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


def _parity_energy(axes: Axes, reference: Floats | None, energy: Floats) -> None:
    if reference is None:
        _no_labels(axes)
        return
    offset = np.nanmean(reference)
    _scatter(axes, reference - offset, energy - offset, "tab:orange")
    axes.set(xlabel="reference energy − mean (eV)", ylabel="predicted energy − mean (eV)")


def _parity_components(axes: Axes, reference: Floats | None, predicted: Floats, what: str, color: str) -> None:
    if reference is None:
        _no_labels(axes)
        return
    _scatter(axes, reference.ravel(), predicted.ravel(), color)
    axes.set(xlabel=f"reference {what}", ylabel=f"predicted {what}")


def _parity_stress(axes: Axes, reference: Floats, stress: Floats) -> None:
    _parity_components(axes, GPA * reference, GPA * stress, "stress component (GPa)", "tab:purple")


def _no_labels(axes: Axes) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, "no labels", ha="center", transform=axes.transAxes)


def _spread_and_error(axes: Axes, quantity: Quantity, color: str) -> None:
    """Plot errors against spreads in meV or meV/Å, with the half-width at 90 %."""
    some = (quantity.by_element > 0) & (quantity.error > 0)
    spread, error = 1000.0 * quantity.by_element[some], 1000.0 * quantity.error[some]
    axes.scatter(spread, error, s=3, alpha=0.4, color=color, edgecolors="none", rasterized=True)
    if len(spread):
        along = np.geomspace(spread.min(), spread.max(), 100)
        width = 1000.0 * quantity.predictor.half_width(along / 1000.0, 0.9)
        axes.plot(along, width, color="black", lw=1.0, label="half-width at 90 %")
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):  # fewer tick labels, so that they do not overlap
            axis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
        axes.legend(frameon=False, fontsize=8)


def _coverage_by_spread(axes: Axes, quantity: Quantity, color: str, name: str) -> None:
    """Plot the coverage of the half-widths at 90 % in each tenth of the spread."""
    held = quantity.error <= quantity.predictor.half_width(quantity.by_element, 0.9)
    tenths = [part for part in np.array_split(np.argsort(quantity.by_element, kind="stable"), 10) if len(part)]
    axes.plot(np.arange(1, len(tenths) + 1), [held[t].mean() for t in tenths], color=color, marker=".", label=name)


def _scatter(axes: Axes, x: Floats, y: Floats, color: str) -> None:
    """Plot predicted (y) against reference values (x), without those that have no reference."""
    there = ~np.isnan(x)
    x, y = x[there], y[there]
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    axes.plot([low, high], [low, high], color="0.5", lw=0.8, zorder=0)
    axes.scatter(x, y, s=3, alpha=0.4, color=color, edgecolors="none", rasterized=True)
    axes.set_aspect("equal")
