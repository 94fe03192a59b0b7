"""Lines that the commands for dynamics and optimization print during and after a run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase import Atoms

    from schnet_ase.geometry.motion import Thermometer
    from schnet_ase.monitor.monitor import UncertaintyMonitor
    from schnet_ase.simulation.dynamics import MDRow


class DynamicsLines:
    """Lines printed for a run: about twenty of its rows, and its mean temperature."""

    def __init__(self, thermostat: bool, steps: int, interval: int) -> None:
        self._thermostat, self._steps = thermostat, steps
        self._every = max(interval, steps // 20 // interval * interval)
        self._kelvin: list[float] = []

    def header(self) -> str:
        """Return the names of the columns."""
        last = f"{'mean T (K)':>18s}" if self._thermostat else "  drift (meV/atom)"
        return f"  time (ps)   potential (eV)   kinetic (eV)       total (eV)    T (K) {last}   deviation (eV/Å)"

    def line(self, step: int, row: MDRow) -> str:
        """Return the line for a row; an empty one if the row is not printed."""
        self._kelvin.append(row.temperature_K)
        if step % self._every and step != self._steps:
            return ""
        mean = sum(self._kelvin) / len(self._kelvin)
        last = f"{mean:18.1f}" if self._thermostat else f"{row.drift_meV_per_atom:18.4f}"
        return (
            f"  {row.time_ps:9.4f} {row.potential_eV:16.4f} {row.kinetic_eV:14.4f} {row.total_eV:16.4f} "
            f"{row.temperature_K:8.1f} {last} {known(row.max_forces_deviation_eV_per_A):>18s}"
        )

    def mean_temperature(self) -> str:
        """Return a line with the mean temperature, and the part of the run that it is taken over."""
        from schnet_ase.simulation.dynamics import mean_temperature

        part = " of the second half" if self._thermostat else ""
        return f"mean temperature{part}: {mean_temperature(self._kelvin, self._thermostat):.0f} K"


def print_degrees_of_freedom(atoms: Atoms, thermometer: Thermometer) -> None:
    """Print how many degrees of freedom the temperature is taken over, if these are not all."""
    degrees = thermometer.degrees(atoms)
    if degrees < 3 * len(atoms):
        print(f"temperatures count {degrees} of {3 * len(atoms)} degrees of freedom: the others cannot exchange energy")


def flagged(watch: UncertaintyMonitor, prefix: Path) -> str:
    """Return in words how many frames of a run were flagged, and which file has them."""
    if not watch.flags:
        return "no frame flagged"
    kept = sum(flag.status == "candidate" for flag in watch.flags)
    where = f" in {prefix}-flagged.extxyz" if kept else ""
    return f"{len(watch.flags)} flagged, at most one in {watch.cooldown} steps, {kept} of them saved{where}"


def known(deviation: float) -> str:
    """Return a deviation with four decimals, or a dash if it is NaN."""
    return "–" if math.isnan(deviation) else f"{deviation:.4f}"
