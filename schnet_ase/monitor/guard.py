"""Criteria by which a run ends because its atoms are far outside the range in which the potential is valid."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units

from schnet_ase.calculators.fixed import FixedCalculator
from schnet_ase.errors import RunawayError, StructureError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.motion import Thermometer
from schnet_ase.monitor.ensemble import largest_known_force
from schnet_ase.monitor.statistics import strengths

HOTTER = 10.0
"""Limit as a multiple of the requested temperature, which not even three degrees of freedom reach in equilibrium."""
COLDEST = 30.0
"""Least reference temperature in K; a start that is not fully relaxed can heat a colder run to ten times as much."""
LOWER = 5.0
"""Limit in eV per atom below the start: more than one chemical bond per atom, which only an artefact can give."""
DEVIATION = 50.0
"""Limit as a multiple of the threshold of the calibration. Optimizations of rattled molecules
recovered from half of it; when it was exceeded, atoms collapsed onto each other some steps later."""
STRONGER = 10.0
"""Limit as a multiple of the largest force on one atom in the training frames."""
FORCE = 100.0
"""Limit of the force on one atom in eV/Å if no card states that force; it occurs where two nuclei nearly coincide."""
RISE = 2.0
"""Limit as a multiple of deviation and force at the start, if that is larger, because a bad start may improve."""
LONE_EVERY = 10
"""Number of steps between searches for atoms without neighbours, which need a neighbour list."""


class GoodFrame(NamedTuple):
    """Last frame that passed all criteria."""

    step: int
    positions: Floats
    momenta: Floats
    cell: Floats


class Guard:
    """Checks the steps of a run and decides when it has to end.

    A run has to end if a number is not finite, the temperature is more than ten times the requested one, the energy
    per atom is 5 eV below that of the start, an atom has lost all neighbours within the cutoff, a force is ten times
    the largest one stated on the card (100 eV/Å if none is stated), or the members of a calibrated ensemble differ by
    more than 50 times its threshold. If force or deviation are large at the start, the limit is at least twice their
    value there. These limits are far above what a monitor flags: a run beyond them is useless.

    Parameters
    ----------
    atoms
        Atoms at the start of the run, with a calculator of forces.
    temperature
        Requested temperature in K; None: there is none, as in an optimization. The limit is ten times this temperature
        or, if higher, that of the atoms' velocities, and at least 300 K. If both are 0, there is no limit.
    conserved
        See `Thermometer`.

    Attributes
    ----------
    thermometer : Thermometer
        Thermometer of the run.
    good : GoodFrame
        Last frame that passed; initially the start.
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
        self._at_rest, self._inverse_masses = np.zeros((len(atoms), 3)), 1.0 / atoms.get_masses()
        self._lone, self._searched = self._out_of_reach().tolist(), 0
        self.good = self._frame(0)

    def __call__(self, step: int) -> str | None:
        """Check the step just made.

        Parameters
        ----------
        step
            Number of the step.

        Returns
        -------
        str or None
            Reason why the run has to end, as part of a sentence; None if the step passed.
        """
        energy, forces = self._computed()
        kinetic, strongest = strengths(self._atoms.arrays.get("momenta", self._at_rest), forces, self._inverse_masses)
        reason = self._energies(energy, kinetic) or self._forces(math.sqrt(strongest)) or self._left(step)
        if reason is None:
            self.good = self._frame(step)
        return reason

    def check(self, step: int) -> None:
        """Check the step just made.

        Raises
        ------
        RunawayError
            The run has to end. The message is only the reason; the caller adds which frame was kept.
        """
        if reason := self(step):
            raise RunawayError(reason, step)

    def spread(self, deviation: float, calibration: Any) -> str | None:
        """Check the spread of an ensemble, which need not be the calculator that moves the atoms.

        Parameters
        ----------
        deviation
            Largest ``forces_deviation``, eV/Å. The limit is at least twice the value of the first call.
        calibration
            The `schnet_ase.uncertainty.calibration.Calibration` of the ensemble; None: there is no limit.

        Returns
        -------
        str or None
            Reason why the run has to end; None if it may continue.
        """
        if self._first_deviation is None:
            self._first_deviation = deviation
        if calibration is None:
            return None
        if calibration is not self._calibration:  # once only, since it takes longer than the rest
            self._calibration, self._threshold = calibration, calibration.threshold()
        threshold = self._threshold
        if deviation <= max(DEVIATION * threshold, RISE * self._first_deviation):
            return None
        return (
            f"the members of the ensemble differ by {deviation:.3g} eV/Å, {deviation / threshold:.0f} times what "
            f"{calibration.exceeded_by} frames like those of the calibration exceeds"
        )

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Raise RunawayError if the step within this context leads to atoms that the model cannot compute."""
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                yield
        except StructureError as error:
            raise RunawayError(str(error), self.good.step + 1) from error

    def restore(self) -> None:
        """Restore the last frame that passed."""
        atoms, good = self._atoms, self.good
        atoms.set_cell(good.cell)
        atoms.set_positions(good.positions, apply_constraint=False)
        atoms.set_momenta(good.momenta, apply_constraint=False)

    def _computed(self) -> tuple[float, Floats]:
        """Return energy and forces of the atoms."""
        atoms = self._atoms
        if isinstance(atoms.calc, FixedCalculator) and not atoms.calc.check_state(atoms):
            results = atoms.calc.results  # in a fifth of the time that ASE takes
            if "forces" in results:
                return results["energy"], results["forces"]
        forces = np.ascontiguousarray(atoms.get_forces(apply_constraint=False), dtype=np.float64)
        return atoms.get_potential_energy(), forces

    def _energies(self, energy: float, kinetic: float) -> str | None:
        """Check the energy, and twice the kinetic energy, eV."""
        atoms = self._atoms
        if not math.isfinite(energy):
            return f"the energy is {energy}"
        if energy < self._lowest:
            below = (self._lowest - energy) / len(atoms) + LOWER
            return f"the energy is {below:.3g} eV per atom below that of the start"
        if self._asked is None:
            return None
        if not math.isfinite(kinetic):
            return "a velocity is no finite number"
        if kinetic / (self._degrees * units.kB) <= self._hottest:
            return None
        kelvin = self.thermometer.kelvin(atoms)  # without the motion of all atoms as one
        if kelvin <= self._hottest:
            return None
        return f"the temperature is {kelvin:,.0f} K, and {self._asked:.4g} K was requested"

    def _forces(self, force: float) -> str | None:
        """Check the largest force on an atom, eV/Å, and the spread of an ensemble."""
        if not math.isfinite(force):
            return "a force is no finite number"
        if force > self._force:
            return f"a force is {force:.3g} eV/Å"
        return self._spread_of(self._atoms.calc)

    def _spread_of(self, calculator: Any) -> str | None:
        """Check the spread if the calculator is an ensemble."""
        deviation = calculator.results.get("forces_deviation")
        return None if deviation is None else self.spread(float(deviation.max()), calculator.calibration)

    def _left(self, step: int) -> str | None:
        """Search for atoms without neighbours if the last search is long enough ago."""
        if abs(step - self._searched) < LONE_EVERY:
            return None
        lone = [i for i in self._out_of_reach().tolist() if i not in self._lone]
        if not lone:
            self._searched = step
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
