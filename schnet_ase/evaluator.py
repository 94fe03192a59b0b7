"""From ASE atoms to numbers: checks, neighbour list, network, and float64 NumPy arrays out."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from schnet_ase.device import resolve_device
from schnet_ase.errors import StructureError
from schnet_ase.forces import predict
from schnet_ase.graph import Graph, geometry, make_graph
from schnet_ase.model import SchNet, StackedSchNet
from schnet_ase.neighbors import Floats, Geometry, NeighborCache

DTYPES = {"float32": torch.float32, "float64": torch.float64}
ENGINES = ("auto", "autograd")
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
    """(6,) eV/Å³ in Voigt order; None unless periodic in all three directions."""


class Evaluator:
    """A network bound to a device, a dtype and a neighbour list.

    Parameters
    ----------
    model
        One or several networks; copied, so that the caller's own keep their device and dtype.
    device
        ``"cpu"``, ``"cuda"``, ...; None: cuda where it is there, else cpu.
    dtype
        ``"float32"`` or ``"float64"``: of the network. Geometry and results are float64 in any case.
    engine
        ``"auto"`` or ``"autograd"``, the PyTorch reference.
    skin
        Å; see `NeighborCache`.
    threads
        PyTorch threads during a call; None: as PyTorch is set.

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
        if engine not in ENGINES:
            raise ValueError(f"engine is {engine!r}; expected one of {', '.join(ENGINES)}")
        if threads is not None and (type(threads) is not int or threads < 1):
            raise ValueError(f"threads is {threads!r}; expected None or an integer of at least 1")
        self.device = resolve_device(device)
        model = copy.deepcopy(model)
        self.model = model.to(self.device, DTYPES[dtype])
        if isinstance(self.model, SchNet):
            self.model.eval().requires_grad_(False)
        self.threads = threads
        self.neighbors = NeighborCache(model.config.pair_cutoff, skin)
        self._graph: Graph | None = None

    def __call__(self, atoms: Atoms) -> Results:
        """Energy, per-atom energies, forces and stress.

        Raises
        ------
        StructureError
            No atoms, positions or a cell that are not finite, an element the model was not trained on, two atoms on
            one spot, or a periodic system for a model without an envelope.
        """
        system = geometry(atoms)
        _check(system, self.model.elements, self.model.config.max_z)
        graph = self._update_graph(system)
        with _threads(self.threads):
            prediction = predict(self.model, graph)
        assert prediction.forces is not None
        assert prediction.virial is not None
        stress = None
        if system.pbc.all():
            virial = prediction.virial[..., 0, :, :].cpu().numpy()
            stress = full_3x3_to_voigt_6_stress(virial) / atoms.get_volume()
        return Results(
            prediction.energy[..., 0].cpu().numpy(),
            prediction.energies.cpu().numpy(),
            prediction.forces.cpu().numpy(),
            stress,
        )

    def _update_graph(self, system: Geometry) -> Graph:
        builds = self.neighbors.builds
        pairs = self.neighbors.get(system)
        if self._graph is None or self.neighbors.builds != builds:
            self._graph = make_graph(system, pairs).to(self.device)
        else:
            # Same list: only what moves is sent again.
            self._graph = self._graph._replace(
                positions=torch.from_numpy(system.positions).to(self.device),
                cell=torch.from_numpy(system.cell)[None].to(self.device),
            )
        _check_distances(system, pairs.first, pairs.second, pairs.shifts)
        return self._graph


@contextlib.contextmanager
def _threads(n: int | None) -> Iterator[None]:
    """PyTorch's number of threads is one for the process; it is put back."""
    before = torch.get_num_threads()
    if n is not None:
        torch.set_num_threads(n)
    try:
        yield
    finally:
        if n is not None:
            torch.set_num_threads(before)


def _check(system: Geometry, elements: Sequence[int] | None, max_z: int) -> None:
    numbers = system.numbers
    if not len(numbers):
        raise StructureError("no atoms; expected at least one")
    finite = np.isfinite(system.positions).all(axis=1)
    if not finite.all():
        first = int(np.argmin(finite))
        raise StructureError(f"position of atom {first} is {system.positions[first]}; expected finite numbers")
    if not np.isfinite(system.cell).all():
        raise StructureError(f"cell is {system.cell.tolist()}; expected finite numbers")
    known = numbers < max_z if elements is None else np.isin(numbers, elements)
    if not known.all():
        strange = ", ".join(sorted({chemical_symbols[z] for z in numbers[~known]}))
        if elements is None:
            raise StructureError(f"element {strange} is beyond the model's max_z = {max_z}")
        trained = ", ".join(chemical_symbols[z] for z in elements)
        raise StructureError(f"the model was not trained on {strange}; it knows {trained}: use another model")


def _check_distances(
    system: Geometry, first: NDArray[np.int64], second: NDArray[np.int64], shifts: NDArray[np.int64]
) -> None:
    vectors = system.positions[second] - system.positions[first]
    if system.pbc.any():
        vectors += shifts @ system.cell
    squared = np.einsum("pk,pk->p", vectors, vectors)
    if squared.size and squared.min() < MIN_DISTANCE**2:
        p = int(np.argmin(squared))
        raise StructureError(
            f"atoms {first[p]} and {second[p]} are {np.sqrt(squared[p]):.2g} Å apart, on one spot; move or remove one"
        )
