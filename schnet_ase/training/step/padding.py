"""Batches of several networks as one, with an equal share for each."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from schnet_ase.data.batches import Batch, collate
from schnet_ase.geometry.graph import Graph, Pairs

PAIRS_PER_ATOM = 8
"""Of what is filled up with: about as many as atoms of a molecule have, that its numbers be about as large."""
SPACING = 1.5  # Å


def side_by_side(batches: Sequence[Batch]) -> Batch:
    """Batches one after the other, all filled up to as many atoms, pairs and systems where they have not as many.

    What is filled up with has no pair with what was there, and no weight; the other weights are such that the mean over
    a share is the mean over its batch.
    """
    if len({_sizes(batch) for batch in batches}) == 1:
        return collate(batches)
    n_pairs = max(len(b.graph.pairs.first) for b in batches)
    n_atoms = max(len(b.graph.numbers) + 2 + (n_pairs - len(b.graph.pairs.first)) // PAIRS_PER_ATOM for b in batches)
    n_systems = 1 + max(b.graph.n_systems for b in batches)
    return collate([_filled(b, n_atoms, n_pairs, n_systems) for b in batches])


def _sizes(batch: Batch) -> tuple[int, int, int]:
    return len(batch.graph.numbers), len(batch.graph.pairs.first), batch.graph.n_systems


def _filled(batch: Batch, n_atoms: int, n_pairs: int, n_systems: int) -> Batch:
    """`batch` with a chain of atoms of number zero as one more system, and further ones without atoms."""
    graph, like = batch.graph, batch.n_atoms
    atoms = n_atoms - len(graph.numbers)
    first = torch.arange(n_pairs - len(graph.pairs.first)) % atoms
    systems = n_systems - graph.n_systems
    positions = like.new_zeros(atoms, 3)
    positions[:, 0] = SPACING * torch.arange(atoms)
    filling = Batch(
        Graph(
            numbers=graph.numbers.new_zeros(atoms),
            positions=positions,
            cell=like.new_zeros(systems, 3, 3),
            pairs=Pairs(first, (first + 1) % atoms),
            shifts=None,
            system=graph.system.new_zeros(atoms),
        ),
        n_atoms=like.new_ones(systems),  # divided by
        energy=like.new_zeros(systems),
        forces=like.new_zeros(atoms, 3),
        virial=like.new_zeros(systems, 3, 3),
        weight=like.new_zeros(systems),
    )
    return collate([batch._replace(weight=batch.weight * n_systems / graph.n_systems), filling])
