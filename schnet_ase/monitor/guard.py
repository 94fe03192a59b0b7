"""Where a run ends because its atoms have left what any potential is good for."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units

from schnet_ase.errors import RunawayError, StructureError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.motion import Thermometer
from schnet_ase.monitor.ensemble import largest_known_force

HOTTER = 10.0
"""Times the temperature asked for: far beyond what a thermostat lets even three degrees of freedom reach."""
COLDEST = 30.0
"""K. Below it, ten times as much is what a start gives off that is not quite relaxed."""
LOWER = 5.0
"""eV per atom below the start: more than a chemical bond for every atom. Only a hole in the potential is so deep."""
DEVIATION = 50.0
"""Times the threshold that 1 in 1,000 frames like those of the calibration exceeds. Optimizations of rattled molecules
came back from half of it; where it was exceeded, atoms fell into each other some steps later."""
STRONGER = 10.0
"""Times the largest force on one atom in the frames that a model learned from."""
FORCE = 100.0
"""eV/Å, on one atom, where no card says what that is: where two nuclei nearly meet."""
RISE = 2.0
"""Times what the start had of deviation and force, where that is more: a bad start may become better."""
LONE_EVERY = 10
"""Steps between looks for atoms out of reach, which take a neighbour list."""


class GoodFrame(NamedTuple):
    """The last frame that passed."""

    step: int
    positions: Floats
    momenta: Floats
    cell: Floats


class Guard:
    """Looks at the steps of a run and says when it has to end.

    A run has to end where a number is not finite, the temperature is more than ten times the one asked for, the energy
    per atom is 5 eV below the start's, an atom has left the reach of all others, a force is ten times the largest that
    the card knows (100 eV/Å where it does not say), or the members of a calibrated ensemble differ by more than 50
    times its threshold. Where force or deviation are large at the start, twice the start's is the limit. These are far
    outside of what a monitor flags: the run is of no use.

    Parameters
    ----------
    atoms
        At the start of the run, with a calculator that can be asked for their forces.
    temperature
        K, asked for. None: the atoms have none, as in an optimization. Where they have velocities that are hotter, ten
        times their temperature is the limit, where both are colder than 30 K that is 300 K, and none where both are 0.
    conserved
        As of `Thermometer`.

    Attributes
    ----------
    thermometer : Thermometer
        What the temperatures are of.
    good : GoodFrame
        The last frame that passed, at first the start.
    """

    def __init__(self, atoms: Atoms, temperature: float | None, *, conserved: bool = False) -> None:
        self._atoms = atoms
        self.thermometer = Thermometer(conserved)
        self._asked = temperature
        own = 0.0 if temperature is None else self.thermometer.kelvin(atoms)
        hottest = max(temperature or 0.0, own)
        self._hottest = HOTTER * max(hottest, COLDEST) if hottest else math.inf
        self._degrees = max(1, self.thermometer.degrees(atoms))
        self._lowest = atoms.get_potential_energy() - LOWER * len(atoms)
        known = largest_known_force(atoms.calc)
        self._force = max(FORCE if known is None else STRONGER * known, RISE * _largest_force(atoms))
        self._first_deviation: float | None = None
        self._calibration: Any = None
        self._threshold = math.inf
        self._spread_of(atoms.calc)
        self._lone = self._out_of_reach()
        self.good = self._frame(0)

    def __call__(self, step: int) -> str | None:
        """Look at the step just made.

        Parameters
        ----------
        step
            Its number.

        Returns
        -------
        str or None
            Why the run has to end, for a sentence; None where it is sound.
        """
        reason = self._energies() or self._forces() or (self._left() if step % LONE_EVERY == 0 else None)
        if reason is None:
            self.good = self._frame(step)
        return reason

    def check(self, step: int) -> None:
        """Look at the step just made.

        Raises
        ------
        RunawayError
            The run has to end; its message is the reason alone, for whoever knows which frame was kept.
        """
        if reason := self(step):
            raise RunawayError(reason, step)

    def spread(self, deviation: float, calibration: Any) -> str | None:
        """Look at the spread of an ensemble, which may be beside the calculator that moves the atoms.

        Parameters
        ----------
        deviation
            eV/Å, the largest ``forces_deviation``. Twice that of the first call is a limit too.
        calibration
            The `schnet_ase.uncertainty.calibration.Calibration` of the ensemble; without one there is no limit.

        Returns
        -------
        str or None
            As of a call.
        """
        if self._first_deviation is None:
            self._first_deviation = deviation
        if calibration is None:
            return None
        if calibration is not self._calibration:  # once: it takes longer than all else here
            self._calibration, self._threshold = calibration, calibration.threshold()
        threshold = self._threshold
        if deviation <= max(DEVIATION * threshold, RISE * self._first_deviation):
            return None
        return (
            f"the members of the ensemble differ by {deviation:.3g} eV/Å, {deviation / threshold:.0f} times what 1 in "
            "1,000 frames like those of the calibration exceeds"
        )

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Around a step: atoms that it led to where nothing can be computed have left the world too."""
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                yield
        except StructureError as error:
            raise RunawayError(str(error), self.good.step + 1) from error

    def restore(self) -> None:
        """Put the atoms back to the last frame that passed."""
        atoms, good = self._atoms, self.good
        atoms.set_cell(good.cell)
        atoms.set_positions(good.positions, apply_constraint=False)
        atoms.set_momenta(good.momenta, apply_constraint=False)

    def _energies(self) -> str | None:
        atoms = self._atoms
        energy = atoms.get_potential_energy()
        if not math.isfinite(energy):
            return f"the energy is {energy}"
        if energy < self._lowest:
            below = (self._lowest - energy) / len(atoms) + LOWER
            return f"the energy is {below:.3g} eV per atom below that of the start"
        if self._asked is None:
            return None
        kinetic = atoms.get_kinetic_energy()
        if not math.isfinite(kinetic):
            return "a velocity is no finite number"
        if 2.0 * kinetic / (self._degrees * units.kB) <= self._hottest:
            return None
        kelvin = self.thermometer.kelvin(atoms)  # without the motion of all atoms as one
        if kelvin <= self._hottest:
            return None
        return f"the temperature is {kelvin:,.0f} K, and {self._asked:.4g} K was asked for"

    def _forces(self) -> str | None:
        force = _largest_force(self._atoms)
        if not math.isfinite(force):
            return "a force is no finite number"
        if force > self._force:
            return f"a force is {force:.3g} eV/Å"
        return self._spread_of(self._atoms.calc)

    def _spread_of(self, calculator: Any) -> str | None:
        """Look at the spread where the calculator is an ensemble."""
        deviation = calculator.results.get("forces_deviation")
        return None if deviation is None else self.spread(float(deviation.max()), calculator.calibration)

    def _left(self) -> str | None:
        lone = np.setdiff1d(self._out_of_reach(), self._lone)
        if not lone.size:
            return None
        return f"atom {lone[0]} ({self._atoms.symbols[lone[0]]}) has no other within the cutoff"

    def _out_of_reach(self) -> np.ndarray:
        ask = getattr(self._atoms.calc, "out_of_reach", None)
        return np.zeros(0, dtype=np.int64) if ask is None else ask(self._atoms)

    def _frame(self, step: int) -> GoodFrame:
        atoms = self._atoms
        return GoodFrame(step, atoms.get_positions(), atoms.get_momenta(), atoms.cell.array.copy())


def _largest_force(atoms: Atoms) -> float:
    forces = atoms.get_forces(apply_constraint=False)
    return math.sqrt(float(np.einsum("ik,ik->i", forces, forces).max()))
