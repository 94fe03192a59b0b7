"""One SchNet as an ASE calculator."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from numpy.typing import NDArray

from schnet_ase.calculators.members import IN_MEMORY
from schnet_ase.errors import StructureError
from schnet_ase.geometry.system import Geometry, cell_volume, geometry
from schnet_ase.inference.evaluator import EngineChoice, Evaluator, Results
from schnet_ase.networks import SchNet
from schnet_ase.registry.card import STUDENT_FILE
from schnet_ase.registry.loading import locate
from schnet_ase.registry.lookup import lasting_name, owning_card
from schnet_ase.uncertainty.calibration import Calibration


class FixedCalculator(Calculator):
    """Base of the calculators for one model and for several: an evaluator with arguments that never change."""

    _evaluator: Evaluator
    _system: Geometry | None = None
    """System of the last calculation."""

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
        return self._evaluator.out_of_reach(geometry(atoms))

    def todict(self, skip_default: bool = False) -> dict[str, Any]:
        """Return the constructor's arguments as JSON scalars."""
        return dict(self.parameters)

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


class SchNetCalculator(FixedCalculator):
    """Calculator for one SchNet model: energy, conservative forces, and stress if the cell has a volume.

    Parameters
    ----------
    model
        Registry name, folder of an entry, path of a ``.safetensors`` file, or a `SchNet` module, which is copied. An
        entry such as ``"rmd17-ethanol"`` stands for its student or, if it has none, its best member;
        ``"rmd17-ethanol/student"`` and ``"rmd17-ethanol/fold-2"`` name one of its models.
    device
        ``"cpu"``, ``"cuda"``, ...; default: cuda if available, else cpu.
    dtype
        ``"float32"`` (default; force noise about 1e-5 eV/Å) or ``"float64"`` (for finite differences, vibrations,
        tight optimizations; about half as fast). Results are float64 arrays in both cases.
    engine
        ``"autograd"``: the PyTorch reference. ``"compiled"``: the fast engine for CPUs; the first call for each dtype
        and kind of system compiles it (up to a minute and a half), and the machine code is kept. ``"auto"``: the
        compiled engine if it supports the model.
    skin
        Å added to the cutoff of the neighbour list, which is rebuilt when an atom has moved half of it. A larger skin
        means fewer rebuilds but more pairs. It does not change results.
    threads
        Number of threads of a call. Default: PyTorch's number of threads; for ``"compiled"``, one thread if the number
        of atoms (for an ensemble, times the number of members) is below 300. In a forked process (a worker of
        ``multiprocessing.Pool``), PyTorch and therefore ``"autograd"`` always use one thread.

    Attributes
    ----------
    calibration : Calibration or None
        For the student of an entry, the calibration that turns the spread of the entry's members into half-widths for
        the student's errors; a monitor saves these with its frames. Otherwise None.

    Raises
    ------
    RegistryError, CheckpointError
        The model cannot be found or read.
    ValueError
        An argument is not one of the above.

    Notes
    -----
    Results are in ASE's units: ``energy`` and ``free_energy`` (eV, the same number), ``energies`` (N,) eV, ``forces``
    (N, 3) eV/Å, ``stress`` (6,) eV/Å³ in Voigt order xx yy zz yz xz xy. `parameters` holds JSON scalars, and
    ``SchNetCalculator(**calc.todict())`` is the same calculator, unless it was made from a module in memory. Only one
    Python thread at a time may use a calculator; give each thread its own.

    The stress is the derivative of the energy with respect to a strain of atoms and cell, over the volume of the cell,
    whichever directions are periodic. The volume of a slab's cell includes the vacuum; the stress times the cell's
    height does not depend on the vacuum and is the force per length in the plane, eV/Å².

    Examples
    --------
    >>> from ase.build import molecule
    >>> atoms = molecule("CH3CH2OH")
    >>> atoms.calc = SchNetCalculator("rmd17-ethanol")
    >>> atoms.get_forces().shape
    (9, 3)
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]  # noqa: RUF012 - ASE's form

    def __init__(
        self,
        model: str | os.PathLike[str] | SchNet,
        *,
        device: str | None = None,
        dtype: str = "float32",
        engine: str = "auto",
        skin: float = 1.0,
        threads: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, (str, os.PathLike, SchNet)):
            raise ValueError(
                f"model is {model!r}; expected a registry name, a path of a .safetensors file, or a SchNet; "
                "for several take SchNetEnsembleCalculator"
            )
        self.calibration: Calibration | None = None
        if isinstance(model, SchNet):
            network, name = model, IN_MEMORY
        else:
            network, path = locate(model)
            name = lasting_name(model)
            card = owning_card(model) if path.name == STUDENT_FILE else None
            if card is not None and card.student is not None:
                self.calibration = card.student.calibration
        self._evaluator = Evaluator(network, device=device, dtype=dtype, engine=engine, skin=skin, threads=threads)
        where = None if device is None else str(device)
        self.parameters.update(model=name, device=where, dtype=dtype, engine=engine, skin=float(skin), threads=threads)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute all properties of `atoms` into `results`; called by ASE.

        Raises
        ------
        StructureError
            The model cannot be evaluated for these atoms.
        PropertyNotImplementedError
            Stress was requested, but the cell has no volume.
        """
        energy, energies, forces, stress = self._evaluate(atoms, properties, system_changes)
        self.results = {
            "energy": float(energy),
            "free_energy": float(energy),
            "energies": energies,
            "forces": forces,
        }
        if stress is not None:
            self.results["stress"] = stress


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
