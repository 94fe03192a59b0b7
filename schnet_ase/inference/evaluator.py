"""From a geometry to numbers: checks, neighbour list, network, and float64 NumPy arrays out."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray

from schnet_ase.engine import (
    Closest,
    CompiledSchNet,
    SystemPrediction,
    TableError,
    announced,
    compiled_half_list,
    why_not_compiled,
)
from schnet_ase.errors import StructureError
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.geometry.graph import Graph, make_graph
from schnet_ase.geometry.neighbors import HalfNeighbors, NeighborCache, half_neighbor_list, lone_atoms
from schnet_ase.geometry.system import Geometry
from schnet_ase.inference.device import is_forked, resolve_device
from schnet_ase.inference.forces import predict
from schnet_ase.networks import SchNet, StackedSchNet

DTYPES = {"float32": torch.float32, "float64": torch.float64}
VOIGT = np.array([0, 4, 8, 5, 2, 1])  # where in a (3, 3) matrix xx yy zz yz xz xy are
FLAT = 1e-12  # of the volume of a rectangular cell with the same edges
MIN_DISTANCE = 1e-3  # Å; closer atoms are one atom twice, and the direction between them is noise


class Results(NamedTuple):
    """Float64 copies of what ASE wants to know; (M,) in front for a stack of M models."""

    energy: NDArray[np.float64]
    """() eV."""
    energies: Floats
    """(N,) eV."""
    forces: Floats
    """(N, 3) eV/Å."""
    stress: Floats | None
    """(6,) eV/Å³ in Voigt order; None where the cell has no volume."""


class EngineChoice(NamedTuple):
    """Which engine a network is evaluated with."""

    name: str
    """``"compiled"`` or ``"autograd"``."""
    reason: str
    """Why that one, in a few words."""


class Evaluator:
    """A network bound to a device, a dtype, an engine and a neighbour list.

    Parameters
    ----------
    model
        One or several networks; copied, so that the caller's own keep their device and dtype.
    device
        ``"cpu"``, ``"cuda"``, ...; None: cuda where it is there, else cpu.
    dtype
        ``"float32"`` or ``"float64"``: of the network. Geometry and results are float64 in any case.
    engine
        ``"autograd"``: the PyTorch reference; ``"compiled"``: the fast path on a CPU; ``"auto"``: that where it can.
    skin
        Å; see `NeighborCache`.
    threads
        Threads of a call; None: what PyTorch is set to, or of the compiled engine as many as the system is worth.

    Raises
    ------
    SchNetError
        The device is not there.
    ValueError
        An argument that is none of the above.
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
        self._known_numbers = b""  # of the last atoms whose elements were checked
        self.engine, self._backend = self._choose(model, where, dtype, engine, threads)
        search = compiled_half_list if self.engine.name == "compiled" else half_neighbor_list
        self.neighbors = NeighborCache(model.config.pair_cutoff, skin, search)

    @staticmethod
    def _choose(
        model: SchNet | StackedSchNet, device: torch.device, dtype: str, engine: str, threads: int | None
    ) -> tuple[EngineChoice, CompiledSchNet | _Autograd]:
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
        return EngineChoice("autograd", reason), _Autograd(model, device, DTYPES[dtype], threads)

    def __call__(self, system: Geometry) -> Results:
        """Energy, per-atom energies, forces and stress.

        Raises
        ------
        StructureError
            No atoms, positions or a cell that are not finite, an element the model was not trained on, two atoms on
            one spot, or a periodic system for a model without an envelope.
        """
        _check_finite(system)
        numbers = system.numbers.tobytes()
        if numbers != self._known_numbers:
            _check_elements(system.numbers, self._elements, self._max_z)
            self._known_numbers = numbers
        compiles = self.engine.name == "compiled" and not self.neighbors.builds
        with announced() if compiles else contextlib.nullcontext():
            pairs = self.neighbors.get(system)
            energies, forces, virial, closest = self._backend(system, pairs)
        if closest.distance < MIN_DISTANCE:
            raise StructureError(
                f"atoms {closest.first} and {closest.second} are {closest.distance:.2g} Å apart, on one spot; "
                "move or remove one"
            )
        volume = cell_volume(system.cell)
        stress = virial.reshape(-1, 9).take(VOIGT, axis=1) / volume if volume else None
        if self._single:
            energies, forces, stress = energies[0], forces[0], None if stress is None else stress[0]
        return Results(np.add.reduce(energies, axis=-1), energies, forces, stress)

    def out_of_reach(self, system: Geometry) -> Integers:
        """Atoms of which the network sees nothing but their element; see `lone_atoms`."""
        return lone_atoms(system, self.neighbors.cutoff)


class _Autograd:
    """The PyTorch reference on a device."""

    def __init__(
        self, model: SchNet | StackedSchNet, device: torch.device, dtype: torch.dtype, threads: int | None
    ) -> None:
        self._device = device
        with torch.inference_mode(False):
            self._model = copy.deepcopy(model).to(device, dtype)
        if isinstance(self._model, SchNet):
            self._model.eval().requires_grad_(False)
        self._threads = threads
        self._pairs: HalfNeighbors | None = None
        self._graph: Graph | None = None

    @torch.inference_mode(False)  # forces need autograd, whatever mode the caller is in
    def __call__(self, system: Geometry, pairs: HalfNeighbors) -> SystemPrediction:
        if self._graph is None or pairs is not self._pairs:
            self._graph = make_graph(system, pairs).to(self._device)
            self._pairs = pairs
        else:  # same list: only what moves is sent again
            self._graph = self._graph._replace(
                positions=torch.from_numpy(system.positions).to(self._device),
                cell=torch.from_numpy(system.cell)[None].to(self._device),
            )
        closest = _closest(system, pairs)
        with _threads(self._threads):
            prediction = predict(self._model, self._graph)
        assert prediction.forces is not None
        assert prediction.virial is not None
        atoms = len(system.numbers)
        return SystemPrediction(
            prediction.energies.cpu().numpy().reshape(-1, atoms),
            prediction.forces.cpu().numpy().reshape(-1, atoms, 3),
            prediction.virial.cpu().numpy().reshape(-1, 3, 3),
            closest,
        )


@contextlib.contextmanager
def _threads(n: int | None) -> Iterator[None]:
    """PyTorch's number of threads is one for the process; it is put back. After a fork it stays at one."""
    before = torch.get_num_threads()
    n = None if is_forked() else n
    if n is not None:
        torch.set_num_threads(n)
    try:
        yield
    finally:
        if n is not None:
            torch.set_num_threads(before)


def _check_finite(system: Geometry) -> None:
    if not len(system.numbers):
        raise StructureError("no atoms; expected at least one")
    if not _all_finite(system.positions):
        first = int(np.argmin(np.isfinite(system.positions).all(axis=1)))
        raise StructureError(f"position of atom {first} is {system.positions[first]}; expected finite numbers")
    if not _all_finite(system.cell):
        raise StructureError(f"cell is {system.cell.tolist()}; expected finite numbers")


def _all_finite(values: Floats) -> bool:
    return b"\0" not in np.isfinite(values).tobytes()  # for few atoms quicker than all()


def cell_volume(cell: Floats) -> float:
    """Å³, and 0 where the vectors span none but by rounding, whichever directions are periodic.

    As numbers of Python's, since the libraries behind `np.linalg` would come from slow memory for each call.
    """
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = cell.tolist()
    volume = abs(ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx))
    edges = math.hypot(ax, ay, az) * math.hypot(bx, by, bz) * math.hypot(cx, cy, cz)
    return volume if volume > FLAT * edges else 0.0


def _check_elements(numbers: NDArray[np.int64], elements: Sequence[int] | None, max_z: int) -> None:
    known = (numbers >= 0) & (numbers < max_z) if elements is None else np.isin(numbers, elements)
    if not known.all():
        names = dict(enumerate(chemical_symbols))
        strange = ", ".join(sorted({names.get(z, f"of number {z}") for z in numbers[~known].tolist()}))
        if elements is None:
            raise StructureError(f"element {strange} is none of the model's, whose max_z is {max_z}")
        trained = ", ".join(chemical_symbols[z] for z in elements)
        raise StructureError(f"the model was not trained on {strange}; it knows {trained}: use another model")


def _closest(system: Geometry, pairs: HalfNeighbors) -> Closest:
    vectors = system.positions[pairs.second] - system.positions[pairs.first]
    if system.pbc.any():
        vectors += pairs.shifts @ system.cell
    squared = np.einsum("pk,pk->p", vectors, vectors)
    if not squared.size:
        return Closest(np.inf, 0, 0)
    p = int(np.argmin(squared))
    return Closest(float(np.sqrt(squared[p])), int(pairs.first[p]), int(pairs.second[p]))
