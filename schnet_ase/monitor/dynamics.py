"""What a monitor asks of the dynamics that calls it."""

from __future__ import annotations

import math
import sys
from types import FrameType
from typing import Any

from ase import Atoms, units
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet
from ase.optimize.optimize import BaseDynamics

from schnet_ase.errors import RunawayError
from schnet_ase.geometry.motion import Thermometer
from schnet_ase.monitor.guard import Guard

GUARDED = 10
"""Steps between looks of a monitor's own guard."""


def calling_dynamics() -> BaseDynamics | None:
    """ASE does not tell an observer whose it is, but it is that dynamics that calls, perhaps by way of a function."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, BaseDynamics):
            return caller
        frame = frame.f_back
    return None


def time_of(dynamics: BaseDynamics | None) -> float:
    """The time in fs; NaN where there is none, as in an optimization."""
    return dynamics.get_time() / units.fs if isinstance(dynamics, MolecularDynamics) else math.nan


class Ending:
    """When a run that a monitor watches has to end: by a guard of its own, or by that of a driver.

    Parameters
    ----------
    atoms
        That move.
    ensemble
        That looks.
    guard
        Of a driver, which asks it of everything but the spread; None: one is made at the first step.
    """

    def __init__(self, atoms: Atoms, ensemble: Any, guard: Guard | None = None) -> None:
        self._atoms = atoms
        self._ensemble = ensemble
        self._guard = guard
        self._asked = 0
        self.own = guard is None

    @property
    def good_step(self) -> int:
        """The step of the last frame that the guard let pass."""
        assert self._guard is not None
        return self._guard.good.step

    def reason(self, dynamics: BaseDynamics, step: int, spread: float | None) -> str | None:
        """Why the run has to end at `step`, with the ensemble's `spread`, eV/Å, where it has looked."""
        if self._guard is None:
            self._guard, self._asked = guard_of(dynamics, self._atoms, step), step
        if spread is not None and (reason := self._guard.spread(spread, self._ensemble.calibration)):
            return reason
        if not self.own or abs(step - self._asked) < GUARDED:
            return None
        self._asked = step
        return self._guard(step)

    def check_spread(self, step: int) -> None:
        """Ask a driver's guard of the spread every ten steps, where the run is not watched yet.

        Raises
        ------
        RunawayError
            As `Guard.check`.
        """
        if step % GUARDED or self._ensemble is self._atoms.calc:
            return
        assert self._guard is not None
        largest = float(self._ensemble.get_property("forces_deviation", self._atoms).max())
        if reason := self._guard.spread(largest, self._ensemble.calibration):
            raise RunawayError(reason, step)


def guard_of(dynamics: BaseDynamics, atoms: Atoms, step: int) -> Guard:
    """A guard for a run that a monitor sees for the first time, at `step`.

    The temperature asked for is that of the thermostat where ASE's dynamics says it (``temp`` or ``temperature_K``), at
    constant energy that of the start, and none else: of other thermostats no temperature is known.
    """
    conserved = isinstance(dynamics, VelocityVerlet)
    kelvin = Thermometer(True).kelvin(atoms) if conserved else getattr(dynamics, "temperature_K", None)
    energy = getattr(dynamics, "temp", None)
    if kelvin is None and energy is not None:
        kelvin = energy / units.kB
    guard = Guard(atoms, kelvin if isinstance(kelvin, float) else None, conserved=conserved)
    guard.good = guard.good._replace(step=step)
    return guard
