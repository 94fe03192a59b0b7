"""Driver for i-PI: energies, forces, virials and committees in its units.

i-PI loads this file by its path, which ``schnet-ase ipi path`` prints, and registers it as a module named after the
file. The file must therefore not have the name of a package that i-PI uses, such as ``ipi``.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple, overload

import ase.io
import numpy as np
from ase import Atoms
from ipi.utils.units import unit_to_internal

from schnet_ase.calculators.ensemble import SchNetEnsembleCalculator
from schnet_ase.calculators.single import SchNetCalculator
from schnet_ase.errors import StructureError
from schnet_ase.geometry.arrays import Floats

__DRIVER_NAME__ = "schnet_ase"
__DRIVER_CLASS__ = "SchNetDriver"

# i-PI's own factors, not ASE's, so that what i-PI converts back is what the calculator computed.
LENGTH = unit_to_internal("length", "angstrom", 1.0)
ENERGY = unit_to_internal("energy", "electronvolt", 1.0)
FORCE = unit_to_internal("force", "ev/ang", 1.0)
FULL = [0, 5, 4, 5, 1, 3, 4, 3, 2]
"""Where the components of a (3, 3) matrix are in Voigt order."""


class Answer(NamedTuple):
    """What i-PI expects of a driver, in atomic units."""

    energy: float
    forces: Floats
    """(N, 3)."""
    virial: Floats
    """(3, 3), minus the derivative of the energy with respect to a strain; zero without periodic directions."""
    extras: str
    """JSON object, or empty."""


class SchNetDriver:
    """Energy, forces and virial of a model for i-PI.

    Parameters
    ----------
    template
        File that ASE reads, with the atoms in i-PI's order. Elements and periodic directions come from it; i-PI sends
        positions and, for periodic atoms, the cell.
    model
        Model as `SchNetCalculator` takes it or, with `ensemble`, as `SchNetEnsembleCalculator` does.
    ensemble
        Whether the mean of all members moves the atoms, and every member's energy, forces and virial are returned as
        ``committee_pot``, ``committee_force`` and ``committee_virial``, in atomic units, for i-PI's ``ffcommittee``.
    device, dtype, threads
        As for `SchNetCalculator`.
    verbosity
        Not used; i-PI gives it to every driver that it runs in its own process.

    Raises
    ------
    StructureError
        The template cannot be read.
    SchNetError
        The model cannot be loaded.
    """

    def __init__(
        self,
        template: str,
        model: str,
        *,
        ensemble: bool = False,
        device: str | None = None,
        dtype: str = "float32",
        threads: int | None = None,
        verbosity: object = None,
    ) -> None:
        self._atoms = _read(template)
        kind = SchNetEnsembleCalculator if ensemble else SchNetCalculator
        self._calculator = kind(model, device=device, dtype=dtype, threads=threads)

    @overload
    def __call__(self, cell: Floats, positions: Floats) -> Answer: ...

    @overload
    def __call__(self, cell: list[Floats], positions: list[Floats]) -> list[Answer]: ...

    def __call__(self, cell: Any, positions: Any) -> Any:
        """Compute one structure or, with ``batch_size`` above 1 in i-PI's input, a list of them.

        Parameters
        ----------
        cell
            (3, 3) lattice vectors as columns, in bohr, or a list of such arrays.
        positions
            (N, 3) in bohr, or a list of such arrays.
        """
        if isinstance(cell, list):
            return [self._compute(*one) for one in zip(cell, positions, strict=True)]
        return self._compute(cell, positions)

    def _compute(self, cell: Floats, positions: Floats) -> Answer:
        atoms, calculator = self._atoms, self._calculator
        atoms.positions[:] = positions.reshape(-1, 3) / LENGTH
        if atoms.pbc.any():
            atoms.set_cell(cell.T / LENGTH)
        calculator.calculate(atoms, ["forces"])
        results, extras = calculator.results, ""
        if isinstance(calculator, SchNetEnsembleCalculator):
            committee = {
                "committee_pot": ENERGY * results["energy_ensemble"],
                "committee_force": FORCE * results["forces_ensemble"],
                "committee_virial": self._virials("stress_ensemble", len(results["energy_ensemble"])),
            }
            extras = json.dumps({name: values.tolist() for name, values in committee.items()})
        virial = self._virials("stress", 1)[0]
        return Answer(ENERGY * results["energy"], FORCE * results["forces"], virial, extras)

    def _virials(self, stress: str, members: int) -> Floats:
        """Return virials, (members, 3, 3) in hartree, from the calculator's result `stress`."""
        if not self._atoms.pbc.any():  # a molecule has none, though its file may have a cell
            return np.zeros((members, 3, 3))
        stresses: Floats = self._calculator.results[stress].reshape(members, 6)
        virials: Floats = -ENERGY * self._atoms.get_volume() * stresses[:, FULL]
        return virials.reshape(members, 3, 3)


def _read(template: str) -> Atoms:
    try:
        atoms = ase.io.read(template, index=0)
    except Exception as error:  # ase.io's readers raise whatever their parser met
        raise StructureError(f"template={template}: not a structure that ASE can read ({error})") from error
    assert isinstance(atoms, Atoms)
    if atoms.pbc.any() and atoms.cell.rank < 3:
        raise StructureError(f"template={template}: periodic, but its cell has no volume; give it three vectors")
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
