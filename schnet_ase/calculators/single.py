"""One SchNet as an ASE calculator."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from numpy.typing import NDArray

from schnet_ase.errors import StructureError
from schnet_ase.geometry.system import Geometry, cell_volume, geometry
from schnet_ase.inference.evaluator import EngineChoice, Evaluator, Results
from schnet_ase.networks import SchNet
from schnet_ase.registry.loading import locate
from schnet_ase.registry.lookup import lasting_name

IN_MEMORY = "in memory"


class FixedCalculator(Calculator):
    """What one model and several have in common: an evaluator, and arguments that do not change once it is made."""

    _evaluator: Evaluator
    _system: Geometry | None = None
    """What was calculated last."""

    # A copy of the atoms at every call, as ASE's own calculators keep it, would cost more than all else around a call.
    @property
    def atoms(self) -> Atoms | None:
        """A copy of the atoms of the last calculation: what an energy depends on, without momenta and the like."""
        system = self._system
        return None if system is None else Atoms(system.numbers, system.positions, cell=system.cell, pbc=system.pbc)

    @atoms.setter
    def atoms(self, atoms: Atoms | None) -> None:
        self._system = None if atoms is None else geometry(atoms).copy()

    @property
    def calculated(self) -> Geometry | None:
        """What the results are of; nothing writes into its arrays, nor into those of the results."""
        return self._system

    @property
    def engine(self) -> EngineChoice:
        """The engine that computes, and why that one."""
        return self._evaluator.engine

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Refuse changes; ASE's constructor also calls this, without arguments."""
        if kwargs:
            raise ValueError(f"set({', '.join(kwargs)}): the calculator is fixed once made; make a new one")
        return {}

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """What has changed since the last calculation; exact, and of what an energy depends on only."""
        return changes(self._system, atoms)

    def reset(self) -> None:
        """Forget atoms, results and the neighbour list: what comes next does not depend on what was before."""
        self.atoms = None
        self.results = {}
        self._evaluator.neighbors.forget()

    @property
    def cutoff(self) -> float | None:
        """How far an atom sees, Å; None: every other one."""
        return self._evaluator.cutoff

    def share_neighbors(self, other: FixedCalculator) -> None:
        """Take the neighbour lists of `other`, which computes the same atoms, where they hold every pair needed."""
        self._evaluator.share_neighbors(other._evaluator)

    def out_of_reach(self, atoms: Atoms) -> NDArray[np.int64]:
        """Atoms with no other within the cutoff: the model says the same of them wherever they are, without spread."""
        return self._evaluator.out_of_reach(geometry(atoms))

    def todict(self, skip_default: bool = False) -> dict[str, Any]:
        """The constructor's arguments, as JSON scalars."""
        return dict(self.parameters)

    def _evaluate(self, atoms: Atoms | None, properties: Sequence[str], system_changes: Sequence[str]) -> Results:
        """Results for `atoms`, or for the last ones; those that there are go, unless they are of the same atoms."""
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
    """A SchNet model: energy and conservative forces, and stress where the cell has a volume.

    Parameters
    ----------
    model
        Registry name (``"rmd17-ethanol"``: its student, or its best member where it has none;
        ``"rmd17-ethanol/student"``, ``"rmd17-ethanol/fold-2"``: that one), folder of an entry, path of a
        ``.safetensors`` file, or a `SchNet` module, which is copied.
    device
        ``"cpu"``, ``"cuda"``, ...; default: cuda where it is there, else cpu.
    dtype
        ``"float32"`` (default; force noise about 1e-5 eV/Å) or ``"float64"`` (for finite differences, vibrations,
        tight optimizations; about half as fast). Results are float64 arrays in both cases.
    engine
        ``"autograd"``: the PyTorch reference; ``"compiled"``: the fast path on a CPU, whose machine code is made at
        the first call for each dtype and kind of system (up to a minute and a half) and kept; ``"auto"``: that where
        it covers the model.
    skin
        Å added to the cutoff of the neighbour list, which is remade when an atom has moved half of it. Larger: fewer
        lists, more pairs. It does not change results.
    threads
        Threads of a call; default: as PyTorch is set, but of ``"compiled"`` one below 300 atoms, those of an ensemble
        counted once a member. In a forked process (a worker of ``multiprocessing.Pool``) PyTorch, and with it
        ``"autograd"`` whatever `threads` is, computes on one.

    Raises
    ------
    RegistryError, CheckpointError
        The model cannot be found or read.
    ValueError
        An argument that is none of the above.

    Notes
    -----
    Results in ASE's units: ``energy`` and ``free_energy`` (eV, the same number), ``energies`` (N,) eV, ``forces``
    (N, 3) eV/Å, ``stress`` (6,) eV/Å³ in Voigt order xx yy zz yz xz xy. `parameters` holds JSON scalars, and
    ``SchNetCalculator(**calc.todict())`` is the same calculator, unless it was made from a module in memory. A
    calculator serves one thread of Python's at a time; give each its own.

    The stress is the derivative of the energy with respect to a strain of atoms and cell, over the volume of the cell,
    whichever directions are periodic. The volume of a slab's cell includes the vacuum: the stress times the cell's
    height does not depend on it and is the force per length in the plane, eV/Å².

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
        network = model if isinstance(model, SchNet) else locate(model).model
        name = IN_MEMORY if isinstance(model, SchNet) else lasting_name(model)
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
            Atoms the model cannot be evaluated on.
        PropertyNotImplementedError
            Stress was asked for, and the cell has no volume.
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
    """Names of what differs between two systems. ASE's own comparison costs more than a step of a small molecule."""
    if known is None:
        return list(all_changes)
    changed = []
    # Bytes: for few atoms a tenth of the time of comparing arrays.
    if known.positions.tobytes() != np.asarray(atoms.positions, dtype=np.float64).tobytes():
        changed.append("positions")
    if known.numbers.tobytes() != atoms.numbers.tobytes():
        changed.append("numbers")
    if known.cell.tobytes() != atoms.cell.array.tobytes():
        changed.append("cell")
    if known.pbc.tobytes() != atoms.pbc.tobytes():
        changed.append("pbc")
    return changed
