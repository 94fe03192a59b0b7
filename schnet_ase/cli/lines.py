"""What the commands that move atoms print while they run and when they have."""

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
    """What is printed of a run: some twenty of its rows, and its mean temperature."""

    def __init__(self, thermostat: bool, steps: int, interval: int) -> None:
        self._thermostat, self._steps = thermostat, steps
        self._every = max(interval, steps // 20 // interval * interval)
        self._kelvin: list[float] = []

    def header(self) -> str:
        """Name the columns."""
        last = f"{'mean T (K)':>18s}" if self._thermostat else "  drift (meV/atom)"
        return f"  time (ps)   potential (eV)   kinetic (eV)       total (eV)    T (K) {last}   deviation (eV/Å)"

    def line(self, step: int, row: MDRow) -> str:
        """Return the line of a row, empty where it is none of those printed."""
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
        """Say it, over what part of the run it is taken."""
        if not self._thermostat:
            return f"mean temperature: {sum(self._kelvin) / len(self._kelvin):.0f} K"
        # A thermostat that begins with a relaxed structure has to heat it first.
        settled = self._kelvin[len(self._kelvin) // 2 :]
        return f"mean temperature of the second half: {sum(settled) / len(settled):.0f} K"


def print_degrees_of_freedom(atoms: Atoms, thermometer: Thermometer) -> None:
    """Say that the temperature counts fewer degrees of freedom than the atoms have, where it does."""
    degrees = thermometer.degrees(atoms)
    if degrees < 3 * len(atoms):
        print(f"temperatures count {degrees} of {3 * len(atoms)} degrees of freedom: energy cannot get into the others")


def flagged(watch: UncertaintyMonitor, prefix: Path) -> str:
    """How many frames of a run were flagged, and where they are."""
    if not watch.flags:
        return "no frame flagged"
    kept = sum(flag.status == "candidate" for flag in watch.flags)
    where = f" in {prefix}-flagged.extxyz" if kept else ""
    return f"{len(watch.flags)} flagged, at most one in {watch.cooldown} steps, {kept} of them kept{where}"


def known(deviation: float) -> str:
    """Four digits of a deviation, or a dash where there is none."""
    return "–" if math.isnan(deviation) else f"{deviation:.4f}"
