"""Information that a monitor takes from the dynamics that calls it, and the decision when a run has to end."""

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
"""Number of steps between checks by a monitor's own guard."""


def calling_dynamics() -> BaseDynamics | None:
    """Find the dynamics that calls the observer, directly or through a function, since ASE does not pass it on."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, BaseDynamics):
            return caller
        frame = frame.f_back
    return None


def time_of(dynamics: BaseDynamics | None) -> float:
    """Return the time in fs; NaN if there is none, as in an optimization."""
    return dynamics.get_time() / units.fs if isinstance(dynamics, MolecularDynamics) else math.nan


class Ending:
    """Decides when a monitored run has to end, with a guard of its own or with that of a driver.

    Parameters
    ----------
    atoms
        Atoms of the run.
    ensemble
        Ensemble whose spread is monitored.
    guard
        Guard of a driver, which itself checks everything but the spread; None: a guard is made at the first step.
    """

    def __init__(self, atoms: Atoms, ensemble: Any, guard: Guard | None = None) -> None:
        self._atoms = atoms
        self._ensemble = ensemble
        self._guard = guard
        self._asked = 0
        self.own = guard is None

    @property
    def good_step(self) -> int:
        """Step of the last frame that passed the guard."""
        assert self._guard is not None
        return self._guard.good.step

    def idle(self, step: int, until_next: int = 1) -> bool:
        """Return whether the guard has nothing to do at `step`, nor until the next time, `until_next` steps later."""
        return not self.own or (self._guard is not None and abs(step - self._asked) + until_next <= GUARDED)

    def reason(self, dynamics: BaseDynamics, step: int, spread: float | None, interval: int) -> str | None:
        """Return why the run has to end at `step`; None if it may continue.

        `spread` is the ensemble's largest deviation in eV/Å, which it computes every `interval` steps; None if it did
        not at this step. The guard checks with the ensemble where that is often enough, since a check of its own at
        another step would take longer.
        """
        if self._guard is None:
            self._guard, self._asked = guard_of(dynamics, self._atoms, step), step
        if spread is not None and (reason := self._guard.spread(spread, self._ensemble.calibration)):
            return reason
        if self.idle(step, 1 if spread is None else interval):
            return None
        self._asked = step
        return self._guard(step)

    def check_spread(self, step: int) -> None:
        """Check the spread with a driver's guard every ten steps, while the monitor is not attached yet.

        Raises
        ------
        RunawayError
            The run has to end.
        """
        if step % GUARDED or self._ensemble is self._atoms.calc:
            return
        assert self._guard is not None
        largest = float(self._ensemble.get_property("forces_deviation", self._atoms).max())
        if reason := self._guard.spread(largest, self._ensemble.calibration):
            raise RunawayError(reason, step)


def guard_of(dynamics: BaseDynamics, atoms: Atoms, step: int) -> Guard:
    """Make a guard for a run whose first monitored step is `step`.

    Its reference temperature is that of the thermostat if ASE's dynamics has it (``temp`` or ``temperature_K``), and at
    constant energy that of the start. For other thermostats it is unknown.
    """
    conserved = isinstance(dynamics, VelocityVerlet)
    kelvin = Thermometer(True).kelvin(atoms) if conserved else getattr(dynamics, "temperature_K", None)
    energy = getattr(dynamics, "temp", None)
    if kelvin is None and energy is not None:
        kelvin = energy / units.kB
    guard = Guard(atoms, kelvin if isinstance(kelvin, float) else None, conserved=conserved)
    guard.good = guard.good._replace(step=step)
    return guard
