"""The data structure on which the network computes: how to make it from `Atoms`, and how to join several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from schnet_ase.geometry.neighbors import HalfNeighbors, half_neighbor_list
from schnet_ase.geometry.system import Geometry


class Pairs(NamedTuple):
    """The interacting pairs of atoms, each once: `first` and `second`, (P,) indices of atoms."""

    first: Tensor
    second: Tensor


class Graph(NamedTuple):
    """One or several systems: N atoms, P pairs (each once), B systems.

    The geometry is float64 whatever the dtype of the network, so that forces do not lose digits for a molecule far from
    the origin, or an atom many cells away.
    """

    numbers: Tensor
    """(N,) int64 atomic numbers."""
    positions: Tensor
    """(N, 3) float64, Å."""
    cell: Tensor
    """(B, 3, 3) float64 lattice vectors as rows, Å; zeros without a cell."""
    pairs: Pairs
    """(P,) and (P,) int64 indices of the atoms of each pair."""
    shifts: Tensor | None
    """(P, 3) float64 lattice translations of the second atoms, Å; None if all are zero."""
    system: Tensor
    """(N,) int64 index of the system of each atom."""

    @property
    def n_systems(self) -> int:
        return self.cell.shape[0]

    def to(self, device: torch.device) -> Graph:
        """Return the graph on `device`."""
        shifts = None if self.shifts is None else self.shifts.to(device)
        pairs = Pairs(self.pairs.first.to(device), self.pairs.second.to(device))
        return Graph(
            self.numbers.to(device),
            self.positions.to(device),
            self.cell.to(device),
            pairs,
            shifts,
            self.system.to(device),
        )


def pair_vectors(graph: Graph) -> Tensor:
    """Return the (P, 3) vectors from the first to the second atom of each pair, Å."""
    first, second = graph.pairs
    vectors = graph.positions[second] - graph.positions[first]
    if graph.shifts is not None:
        cell = graph.cell[graph.system[first]]
        vectors = vectors + torch.einsum("pk,pkl->pl", graph.shifts, cell)
    return vectors


def make_graph(atoms: Geometry, pairs: HalfNeighbors) -> Graph:
    """Make the `Graph` of one system from its atoms and its list of pairs."""
    return Graph(
        numbers=torch.from_numpy(atoms.numbers.astype(np.int64)),
        positions=torch.as_tensor(atoms.positions, dtype=torch.float64),
        cell=torch.as_tensor(atoms.cell, dtype=torch.float64)[None],
        pairs=Pairs(torch.from_numpy(pairs.first), torch.from_numpy(pairs.second)),
        shifts=torch.as_tensor(pairs.shifts, dtype=torch.float64) if pairs.shifts.any() else None,
        system=torch.zeros(len(atoms.numbers), dtype=torch.int64),
    )


def build_graph(atoms: Geometry, cutoff: float | None) -> Graph:
    """Make the `Graph` of one system with every pair nearer than `cutoff` (Å; None: every pair)."""
    return make_graph(atoms, half_neighbor_list(atoms.positions, atoms.cell, atoms.pbc, cutoff))


def batch_graphs(graphs: Sequence[Graph]) -> Graph:
    """Join several graphs into one, without pairs between them; systems keep their order."""
    offsets = np.cumsum([0, *(len(g.numbers) for g in graphs)])
    systems = np.cumsum([0, *(g.n_systems for g in graphs)])
    shifts = None
    if any(g.shifts is not None for g in graphs):
        shifts = torch.cat([_shifts_or_zeros(g) for g in graphs])
    return Graph(
        numbers=torch.cat([g.numbers for g in graphs]),
        positions=torch.cat([g.positions for g in graphs]),
        cell=torch.cat([g.cell for g in graphs]),
        pairs=Pairs(
            torch.cat([g.pairs.first + int(n) for g, n in zip(graphs, offsets, strict=False)]),
            torch.cat([g.pairs.second + int(n) for g, n in zip(graphs, offsets, strict=False)]),
        ),
        shifts=shifts,
        system=torch.cat([g.system + int(n) for g, n in zip(graphs, systems, strict=False)]),
    )


def _shifts_or_zeros(graph: Graph) -> Tensor:
    return graph.shifts if graph.shifts is not None else torch.zeros((len(graph.pairs.first), 3), dtype=torch.float64)
