"""Evaluate a network on a geometry: checks, neighbour list, network, and float64 NumPy arrays as results."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from schnet_ase.engine import TableError, announced, compiled_half_list
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.geometry.neighbors import HalfNeighbors, NeighborCache, half_neighbor_list, lone_atoms
from schnet_ase.geometry.system import Geometry, cell_volume
from schnet_ase.inference.autograd import Autograd
from schnet_ase.inference.backend import Backend
from schnet_ase.inference.checks import check_elements, check_finite, refuse_coincident
from schnet_ase.inference.compiled import CompiledSchNet, why_not_compiled
from schnet_ase.inference.device import resolve_device
from schnet_ase.inference.lone import compiled_lone_atoms
from schnet_ase.inference.networks import FixedNetworks
from schnet_ase.priors import fixed_terms, total
from schnet_ase.priors.zbl import ZBL

DTYPES = {"float32": torch.float32, "float64": torch.float64}
VOIGT = np.array([0, 4, 8, 5, 2, 1])  # indices of xx yy zz yz xz xy in a (3, 3) matrix


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
    networks
        One or several networks.
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
        networks: FixedNetworks,
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
        self.networks = networks
        self.device, self.dtype = where, DTYPES[dtype]
        self._single = not networks.member_shape
        self._elements = networks.elements
        self._max_z = networks.config.max_z
        self._known_numbers = b""  # numbers of the last atoms whose elements were checked
        self._first = True
        self.engine, self.backend = self._choose(networks, where, dtype, engine, threads)
        # The compiled kernel has the repulsion of pairs in it.
        compiled = self.engine.name == "compiled"
        self.terms = tuple(t for t in fixed_terms(networks.config) if not (compiled and isinstance(t, ZBL)))
        self.search = compiled_half_list if compiled else half_neighbor_list
        self.cutoff = networks.config.pair_cutoff
        self.neighbors = NeighborCache(self.cutoff, skin, self.search)

    @staticmethod
    def _choose(
        networks: FixedNetworks, device: torch.device, dtype: str, engine: str, threads: int | None
    ) -> tuple[EngineChoice, Backend]:
        reason = "asked for"
        if engine != "autograd":
            obstacle = f"device {device.type}" if device.type != "cpu" else why_not_compiled(networks.config)
            try:
                if obstacle is None:
                    return EngineChoice("compiled", "it covers the model"), CompiledSchNet(networks, dtype, threads)
            except TableError as error:
                obstacle = str(error)
            reason = f"the compiled engine does not cover {obstacle}"
            if engine == "compiled":
                instead = "engine='auto'" if device.type == "cpu" else "device='cpu', or engine='auto'"
                raise ValueError(f"engine='compiled': {reason}; use {instead}")
        return EngineChoice("autograd", reason), Autograd(networks, device, DTYPES[dtype], threads)

    def __call__(self, system: Geometry) -> Results:
        """Compute energy, per-atom energies, forces and stress.

        Raises
        ------
        StructureError
            There are no atoms, positions or the cell are not finite, the model was not trained on an element, two atoms
            have the same position, or the system is periodic and the model has no envelope;
            or a fixed term refuses the system.
        """
        self.check(system)
        with self.announced():
            pairs = self.neighbors.get(system)
            predicted = self.backend(system, pairs)
        refuse_coincident(predicted.closest)
        return self.finish(system, pairs, predicted.energies, predicted.forces, predicted.virial)

    def check(self, system: Geometry) -> None:
        """Refuse a system that no network, or not this one, can evaluate; see `__call__`."""
        check_finite(system)
        numbers = system.numbers.tobytes()
        if numbers != self._known_numbers:
            check_elements(system.numbers, self._elements, self._max_z)
            self._known_numbers = numbers

    def announced(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the first call of the compiled engine says that it compiles."""
        first, self._first = self._first, False
        return announced() if first and self.engine.name == "compiled" else contextlib.nullcontext()

    def finish(
        self, system: Geometry, pairs: HalfNeighbors, energies: Floats, forces: Floats, virial: Floats
    ) -> Results:
        """Add the fixed terms to the predictions of M networks, and return what ASE wants."""
        if self.terms:
            part = total(self.terms, system, pairs)
            energies, forces, virial = energies + part.energies, forces + part.forces, virial + part.virial
        volume = cell_volume(system.cell)
        stress = virial.reshape(-1, 9).take(VOIGT, axis=1) / volume if volume else None
        if self._single:
            energies, forces, stress = energies[0], forces[0], None if stress is None else stress[0]
        return Results(np.add.reduce(energies, axis=-1), energies, forces, stress)

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that the network takes."""
        return tuple(range(1, self._max_z)) if self._elements is None else self._elements

    def share_neighbors(self, other: Evaluator) -> None:
        """Use the neighbour lists of `other` from now on, if they contain every pair within the cutoff."""
        theirs = other.neighbors.cutoff
        if theirs is None or (self.cutoff is not None and self.cutoff <= theirs):
            self.neighbors = other.neighbors

    def out_of_reach(self, system: Geometry) -> Integers:
        """Return the atoms without neighbours, for which the network knows only the element; see `lone_atoms`."""
        search = compiled_lone_atoms if self.engine.name == "compiled" else lone_atoms
        return search(system, self.neighbors.get(system), self.cutoff)
