"""Join batches of several networks into one, with an equal share for each."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from schnet_ase.data.batches import Batch, collate
from schnet_ase.geometry.graph import Graph, Pairs

PAIRS_PER_ATOM = 8
"""Pairs per atom of the padding, about as many as in a molecule, so that its numbers have about the same size."""
SPACING = 1.5  # Å


def side_by_side(batches: Sequence[Batch]) -> Batch:
    """Concatenate batches, all padded to equal numbers of atoms, pairs and systems if they differ.

    The padding has no pair with real atoms, and no weight. The other weights are scaled so that the mean over a share
    is the mean over its batch.
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
    """Pad `batch` with a chain of atoms of number zero as one more system, and with further systems without atoms."""
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
        n_atoms=like.new_ones(systems),  # a divisor, so not zero
        energy=like.new_zeros(systems),
        forces=like.new_zeros(atoms, 3),
        virial=like.new_zeros(systems, 3, 3),
        weight=like.new_zeros(systems),
    )
    return collate([batch._replace(weight=batch.weight * n_systems / graph.n_systems), filling])
