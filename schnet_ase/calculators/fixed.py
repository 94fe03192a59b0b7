"""What the calculators for one model and for several have in common."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self, SupportsIndex

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from numpy.typing import NDArray

from schnet_ase.errors import RegistryError, StructureError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.system import Geometry, cell_volume, geometry
from schnet_ase.inference.derivatives import descriptors, hessians, virials
from schnet_ase.inference.evaluator import VOIGT, EngineChoice, Evaluator, Results
from schnet_ase.inference.heat_flux import HeatFlux, potential_flux
from schnet_ase.uncertainty.calibration import Calibration


class FixedCalculator(Calculator):
    """Base of the calculators for one model and for several: an evaluator with arguments that never change."""

    _evaluator: Evaluator
    _system: Geometry | None = None
    """System of the last calculation."""
    calibration: Calibration | None = None
    _card_calibration: Calibration | None = None
    """Calibration that the entry's card gave; a user may set another one."""
    _hashes: tuple[str, ...] = ()
    """SHA-256 of the models' files; empty for models that were given in memory."""

    # ASE's own calculators copy the atoms at every call, which would cost more than the rest of the call's overhead.
    @property
    def atoms(self) -> Atoms | None:
        """Copy of the last calculation's atoms, with only what the energy depends on (no momenta, for example)."""
        system = self._system
        return None if system is None else Atoms(system.numbers, system.positions, cell=system.cell, pbc=system.pbc)

    @atoms.setter
    def atoms(self, atoms: Atoms | None) -> None:
        self._system = None if atoms is None else geometry(atoms).copy()

    @property
    def calculated(self) -> Geometry | None:
        """System that the results belong to; neither its arrays nor those of the results are ever overwritten."""
        return self._system

    @property
    def engine(self) -> EngineChoice:
        """Engine in use, and the reason for choosing it."""
        return self._evaluator.engine

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Refuse any change; ASE's constructor also calls this method, without arguments."""
        if kwargs:
            raise ValueError(f"set({', '.join(kwargs)}): the calculator is fixed once made; make a new one")
        return {}

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """Return the names of what changed since the last calculation, compared exactly (`tol` is ignored).

        Only quantities that the energy depends on are compared.
        """
        return changes(self._system, atoms)

    def reset(self) -> None:
        """Discard atoms, results and neighbour list, so that the next calculation does not depend on earlier ones."""
        self.atoms = None
        self.results = {}
        self._evaluator.neighbors.forget()

    @property
    def cutoff(self) -> float | None:
        """Distance in Å up to which atoms interact; None if all atoms interact."""
        return self._evaluator.cutoff

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that the model was trained on; for a `SchNet` without such a list, all below its `max_z`."""
        return self._evaluator.elements

    @property
    def allowed_atomic_numbers(self) -> frozenset[int]:
        """The same as `elements`, as a set and under the name that mlip and mlipaudit use."""
        return frozenset(self.elements)

    def share_neighbors(self, other: FixedCalculator) -> None:
        """Use the neighbour lists of `other`, which computes the same atoms, if they contain all pairs needed."""
        self._evaluator.share_neighbors(other._evaluator)

    def out_of_reach(self, atoms: Atoms) -> NDArray[np.int64]:
        """Return the indices of atoms without a neighbour within the cutoff.

        The prediction for such an atom does not depend on its position, so its spread says nothing.
        """
        forces: Any = self.results.get("forces")
        # The forces of a network come from neighbours, and to look at them takes less time than a search.
        known = forces is not None and not self._evaluator.terms and not self.check_state(atoms)
        if known and np.count_nonzero(forces) == forces.size:
            return np.zeros(0, dtype=np.int64)
        return self._evaluator.out_of_reach(geometry(atoms))

    def get_hessian(self, atoms: Atoms) -> Floats:
        """Compute the second derivatives of the energy with respect to the positions, at the present cell.

        They are analytic and in float64, whatever the calculator's dtype and engine; those of dispersion are
        differences of its forces. Of an ensemble they are those of the mean energy.

        Parameters
        ----------
        atoms
            Molecule or crystal of N atoms; constraints are not considered. Time and memory grow as N² and more.

        Returns
        -------
        Floats
            (3N, 3N) eV/Å², symmetric, in the order x, y, z of the first atom, of the second, ...

        Raises
        ------
        StructureError
            The model cannot be evaluated for these atoms.
        """
        mean: Floats = self.get_hessians(atoms).mean(axis=0)
        return mean

    def get_hessians(self, atoms: Atoms) -> Floats:
        """Compute the Hessians (M, 3N, 3N) of the M members of an ensemble, eV/Å²; see `get_hessian`."""
        return hessians(self._evaluator, geometry(atoms))

    def get_descriptors(self, atoms: Atoms, member: int = 0) -> Floats:
        """Compute the features that describe each atom and its surroundings, as the last interaction leaves them.

        Parameters
        ----------
        atoms
            N atoms.
        member
            Member of an ensemble, counted from 0. The features of different members have nothing in common, so there is
            no mean of them.

        Returns
        -------
        Floats
            (N, F) float64, without a unit; invariant under rotation, translation and exchange of like atoms.

        Raises
        ------
        StructureError
            The model cannot be evaluated for these atoms.
        ValueError
            There is no such member.
        """
        return descriptors(self._evaluator, geometry(atoms), member)

    def get_heat_flux(self, atoms: Atoms) -> HeatFlux:
        """Compute the heat flux of the atoms with their velocities, for thermal conductivities by Green and Kubo.

        The potential part is exact for a network whose interactions reach several cutoffs far; see
        `schnet_ase.inference.heat_flux`. Of an ensemble it is the mean.

        Returns
        -------
        HeatFlux
            Named tuple of the parts ``potential`` and ``convective``, (3,) each, in eV Å over ASE's unit of time (times
            `ase.units.fs`: eV Å/fs), not divided by the volume. The flux is their sum; for a solid, the first suffices.

        Raises
        ------
        StructureError
            The model cannot be evaluated for these atoms.
        PropertyNotImplementedError
            The model has dispersion, which gives no derivatives of the energies of atoms.
        """
        velocities = atoms.get_velocities()
        kinetic = 0.5 * atoms.get_masses() * np.einsum("ik,ik->i", velocities, velocities)
        energies = self.get_property("energies", atoms)
        potential = potential_flux(self._evaluator, geometry(atoms), velocities)
        return HeatFlux(potential, np.asarray((kinetic + energies) @ velocities, dtype=np.float64))

    def todict(self, skip_default: bool = False) -> dict[str, Any]:
        """Return the constructor's arguments as JSON scalars."""
        return dict(self.parameters)

    def copy(self) -> Self:
        """Return an independent calculator with the same results, which shares the weights and costs next to nothing.

        ``copy.deepcopy`` does the same.
        """
        return copy.deepcopy(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return twin

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """Pickle the names and hashes of the models instead of their weights, where they were given by name."""
        if not self._hashes:
            return super().__reduce_ex__(protocol)
        left = {"_evaluator", "parameters", "_hashes", "_card_calibration"}
        if self.calibration is self._card_calibration:
            left.add("calibration")
        state = {name: value for name, value in self.__dict__.items() if name not in left}
        return _made_again, (type(self), self.todict(), self._hashes), state

    def _evaluate(self, atoms: Atoms | None, properties: Sequence[str], system_changes: Sequence[str]) -> Results:
        """Compute results for `atoms` (default: the previous atoms). Discard old results if the atoms changed."""
        if system_changes:
            self.results = {}
        if atoms is not None:
            self.atoms = atoms
        system = self._system
        if system is None:
            raise StructureError("calculate() got no atoms; expected an ase.Atoms")
        if any(name.startswith("stress") for name in properties) and not cell_volume(system.cell):
            raise PropertyNotImplementedError(
                f"stress needs a cell that has a volume; atoms.cell is {system.cell.tolist()}: give it three vectors"
            )
        return self._evaluator(system)

    def _add_asked(self, properties: Sequence[str]) -> None:
        """Add the results that are computed only where they are asked for."""
        if "stresses" in properties:
            assert self._system is not None
            of_atoms = virials(self._evaluator, self._system).reshape(-1, 9).take(VOIGT, axis=1)
            self.results["stresses"] = of_atoms / cell_volume(self._system.cell)


def _made_again(kind: type[FixedCalculator], arguments: dict[str, Any], hashes: tuple[str, ...]) -> FixedCalculator:
    """Make the calculator of a pickle.

    Raises
    ------
    RegistryError
        The models of this name are not here, or are not those of the pickle.
    """
    calculator = kind(**arguments)
    if calculator._hashes != hashes:
        name = arguments.get("model", arguments.get("models"))
        raise RegistryError(
            f"{name}: the SHA-256 of its models is not that of the pickled calculator; install the entry that it was "
            "made from, or make a new calculator"
        )
    return calculator


def changes(known: Geometry | None, atoms: Atoms) -> list[str]:
    """Return the names of what differs between two systems; ASE's own comparison is slower than a small MD step."""
    if known is None:
        return list(all_changes)
    changed = []
    # For few atoms, comparing bytes takes a tenth of the time of comparing arrays.
    if known.positions.tobytes() != np.asarray(atoms.positions, dtype=np.float64).tobytes():
        changed.append("positions")
    if known.numbers.tobytes() != atoms.numbers.tobytes():
        changed.append("numbers")
    if known.cell.tobytes() != atoms.cell.array.tobytes():
        changed.append("cell")
    if known.pbc.tobytes() != atoms.pbc.tobytes():
        changed.append("pbc")
    return changed
