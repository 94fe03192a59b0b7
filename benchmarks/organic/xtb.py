"""GFN2-xTB of one molecule: labels that depend on the geometry alone, and cheaper forces to move the atoms with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import units
from ase.calculators.calculator import Calculator, all_changes
from tblite.exceptions import TBLiteRuntimeError
from tblite.interface import Calculator as TBLite
from tblite.interface import Result

ACCURACY = 0.1
"""Of labels; tblite's default of 1 converges ten times less tightly."""
_EV = 2 * units.Rydberg  # a Hartree
_MOVING = 1.0  # accuracy of forces that only move atoms


class Unconverged(Exception):
    """The self-consistent charges were not found, or the numbers are not finite."""


class Label(NamedTuple):
    """What a frame is trained on."""

    energy: float
    """eV; the free energy at the electronic temperature of 300 K, whose gradient the forces are."""
    forces: np.ndarray
    """(N, 3) eV/Å."""


class Xtb:
    """A neutral molecule with all electrons paired.

    Parameters
    ----------
    numbers
        (N,) atomic numbers.
    """

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers
        self.labels = 0
        """Calculations made so far, those that failed too."""
        self._tight: TBLite | None = None
        self._loose: TBLite | None = None
        self._last: Result | None = None

    def label(self, positions: np.ndarray) -> Label:
        """Energy and forces from a fresh guess of the charges, whatever was calculated before.

        Raises
        ------
        Unconverged
            There are none.
        """
        self._tight = self._updated(self._tight, positions, ACCURACY)
        return self._calculate(self._tight, None)[0]

    def forces(self, positions: np.ndarray) -> Label:
        """The same less tightly and from the charges of the last call, for dynamics and optimizers."""
        self._loose = self._updated(self._loose, positions, _MOVING)
        last, self._last = self._last, None  # nothing is left of a failure
        label, self._last = self._calculate(self._loose, last)
        return label

    def _updated(self, calculator: TBLite | None, positions: np.ndarray, accuracy: float) -> TBLite:
        if calculator is None:
            calculator = TBLite("GFN2-xTB", self.numbers, positions / units.Bohr)
            calculator.set("verbosity", 0)
            calculator.set("accuracy", accuracy)
        else:
            calculator.update(positions / units.Bohr)
        return calculator

    def _calculate(self, calculator: TBLite, start: Result | None) -> tuple[Label, Result]:
        self.labels += 1
        try:
            result = calculator.singlepoint(start)
        except TBLiteRuntimeError as error:
            raise Unconverged(str(error)) from error
        energy, gradient = float(result.get("energy")), result.get("gradient")
        if not (np.isfinite(energy) and np.isfinite(gradient).all()):
            raise Unconverged("not finite")
        return Label(energy * _EV, -gradient * (_EV / units.Bohr)), result


class XtbCalculator(Calculator):  # type: ignore[misc]
    """The cheaper forces for ASE's optimizers."""

    implemented_properties = ("energy", "forces")

    def __init__(self, xtb: Xtb) -> None:
        super().__init__()
        self._xtb = xtb

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:  # type: ignore[no-untyped-def]
        """As ASE's calculators."""
        super().calculate(atoms, properties, system_changes)
        energy, forces = self._xtb.forces(self.atoms.positions)
        self.results = {"energy": energy, "forces": forces}
