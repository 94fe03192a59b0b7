"""Evaluate a network on a geometry: checks, neighbour list, network, and float64 NumPy arrays as results."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from schnet_ase.engine import TableError, announced, compiled_half_list
from schnet_ase.errors import StructureError
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.geometry.neighbors import NeighborCache, half_neighbor_list, lone_atoms
from schnet_ase.geometry.system import Geometry, cell_volume
from schnet_ase.inference.autograd import Autograd
from schnet_ase.inference.backend import Backend
from schnet_ase.inference.checks import check_elements, check_finite
from schnet_ase.inference.compiled import CompiledSchNet, why_not_compiled
from schnet_ase.inference.device import resolve_device
from schnet_ase.inference.lone import compiled_lone_atoms
from schnet_ase.networks import SchNet, StackedSchNet
from schnet_ase.priors import fixed_terms, total
from schnet_ase.priors.zbl import ZBL

DTYPES = {"float32": torch.float32, "float64": torch.float64}
VOIGT = np.array([0, 4, 8, 5, 2, 1])  # indices of xx yy zz yz xz xy in a (3, 3) matrix
MIN_DISTANCE = 1e-3  # Å; closer atoms are probably one atom twice, and the direction between them is noise


class Results(NamedTuple):
    """Float64 copies of the results for ASE; arrays have (M,) in front for a stack of M models."""

    energy: NDArray[np.float64]
    """() eV."""
    energies: Floats
    """(N,) eV."""
    forces: Floats
    """(N, 3) eV/Å."""
    stress: Floats | None
    """(6,) eV/Å³ in Voigt order; None if the cell has no volume."""


class EngineChoice(NamedTuple):
    """The engine that evaluates a network."""

    name: str
    """``"compiled"`` or ``"autograd"``."""
    reason: str
    """Reason for the choice, in a few words."""


class Evaluator:
    """A network and the fixed terms of its energy, bound to a device, a dtype, an engine and a neighbour list.

    Parameters
    ----------
    model
        One or several networks; copied, so that the caller's own keep their device and dtype.
    device
        ``"cpu"``, ``"cuda"``, ...; None: cuda if available, otherwise cpu.
    dtype
        ``"float32"`` or ``"float64"``, for the network. Geometry and results are float64 in any case.
    engine
        ``"autograd"``: the PyTorch reference; ``"compiled"``: the fast path on a CPU; ``"auto"``: the fast path if
        possible.
    skin
        Å; see `NeighborCache`.
    threads
        Threads of a call; None: PyTorch's setting, or with the compiled engine as many as pay for the size of the
        system.

    Raises
    ------
    SchNetError
        The device, or a package that a fixed term needs, is not available.
    ValueError
        An argument has none of the values above.
    """

    def __init__(
        self,
        model: SchNet | StackedSchNet,
        *,
        device: str | None,
        dtype: str,
        engine: str,
        skin: float,
        threads: int | None,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
        if threads is not None and (type(threads) is not int or threads < 1):
            raise ValueError(f"threads is {threads!r}; expected None or an integer of at least 1")
        where = resolve_device(device)
        if engine not in ("auto", "autograd", "compiled"):
            raise ValueError(f"engine is {engine!r}; expected 'auto', 'autograd' or 'compiled'")
        self._single = isinstance(model, SchNet)
        self._elements = model.elements
        self._max_z = model.config.max_z
        self._known_numbers = b""  # numbers of the last atoms whose elements were checked
        self.engine, self._backend = self._choose(model, where, dtype, engine, threads)
        # The compiled kernel has the repulsion of pairs in it.
        compiled = self.engine.name == "compiled"
        self._terms = tuple(t for t in fixed_terms(model.config) if not (compiled and isinstance(t, ZBL)))
        search = compiled_half_list if compiled else half_neighbor_list
        self.cutoff = model.config.pair_cutoff
        self.neighbors = NeighborCache(self.cutoff, skin, search)

    @staticmethod
    def _choose(
        model: SchNet | StackedSchNet, device: torch.device, dtype: str, engine: str, threads: int | None
    ) -> tuple[EngineChoice, Backend]:
        reason = "asked for"
        if engine != "autograd":
            obstacle = f"device {device.type}" if device.type != "cpu" else why_not_compiled(model.config)
            try:
                if obstacle is None:
                    members = [model] if isinstance(model, SchNet) else model.members()
                    return EngineChoice("compiled", "it covers the model"), CompiledSchNet(members, dtype, threads)
            except TableError as error:
                obstacle = str(error)
            reason = f"the compiled engine does not cover {obstacle}"
            if engine == "compiled":
                instead = "engine='auto'" if device.type == "cpu" else "device='cpu', or engine='auto'"
                raise ValueError(f"engine='compiled': {reason}; use {instead}")
        return EngineChoice("autograd", reason), Autograd(model, device, DTYPES[dtype], threads)

    def __call__(self, system: Geometry) -> Results:
        """Compute energy, per-atom energies, forces and stress.

        Raises
        ------
        StructureError
            There are no atoms, positions or the cell are not finite, the model was not trained on an element, two atoms
            have the same position, or the system is periodic and the model has no envelope;
            or a fixed term refuses the system.
        """
        check_finite(system)
        numbers, first = system.numbers.tobytes(), not self._known_numbers
        if numbers != self._known_numbers:
            check_elements(system.numbers, self._elements, self._max_z)
            self._known_numbers = numbers
        with announced() if first and self.engine.name == "compiled" else contextlib.nullcontext():
            pairs = self.neighbors.get(system)
            energies, forces, virial, closest, _ = self._backend(system, pairs)
        if closest.distance < MIN_DISTANCE:
            raise StructureError(
                f"atoms {closest.first} and {closest.second} are {closest.distance:.2g} Å apart, at one position; "
                "move or remove one"
            )
        if self._terms:
            part = total(self._terms, system, pairs)
            energies, forces, virial = energies + part.energies, forces + part.forces, virial + part.virial
        volume = cell_volume(system.cell)
        stress = virial.reshape(-1, 9).take(VOIGT, axis=1) / volume if volume else None
        if self._single:
            energies, forces, stress = energies[0], forces[0], None if stress is None else stress[0]
        return Results(np.add.reduce(energies, axis=-1), energies, forces, stress)

    def share_neighbors(self, other: Evaluator) -> None:
        """Use the neighbour lists of `other` from now on, if they contain every pair within the cutoff."""
        theirs = other.neighbors.cutoff
        if theirs is None or (self.cutoff is not None and self.cutoff <= theirs):
            self.neighbors = other.neighbors

    def out_of_reach(self, system: Geometry) -> Integers:
        """Return the atoms without neighbours, for which the network knows only the element; see `lone_atoms`."""
        search = compiled_lone_atoms if self.engine.name == "compiled" else lone_atoms
        return search(system, self.neighbors.get(system), self.cutoff)
