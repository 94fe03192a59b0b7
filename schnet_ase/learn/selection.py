"""Which frames to label: those whose surroundings of atoms are farthest from all that is labelled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from schnet_ase.graph import batch_graphs, build_graph, geometry, pair_vectors
from schnet_ase.model import SchNet
from schnet_ase.neighbors import Floats


def farthest_first(frames: Sequence[Atoms], known: Sequence[Atoms], model: SchNet) -> list[int]:
    """An order of `frames` in which each is the farthest from `known` and from those before it.

    The distance of a frame from a set is that of its strangest atom: the largest, over its atoms, of the smallest
    distance between the network's representation of this atom and one of the same element in the set. Summed over
    atoms, one stretched bond would drown in the others' noise.

    Parameters
    ----------
    frames
        To be put in order.
    known
        Labelled frames.
    model
        Whose representation is taken.

    Returns
    -------
    list of int
        Indices into `frames`.
    """
    if not frames:
        return []
    features = representations([*frames, *known], model)
    candidates, references = features[: len(frames)], features[len(frames) :]
    numbers = [atoms.numbers for atoms in (*frames, *known)]
    nearest = [np.full(len(x), np.inf) for x in candidates]

    def approach(x: Floats, z: NDArray[np.int64]) -> None:
        """`x`, of elements `z`, joins the set."""
        for index, candidate in enumerate(candidates):
            for element in np.unique(z):
                mine, theirs = numbers[index] == element, z == element
                if mine.any():
                    squared = ((candidate[mine][:, None] - x[theirs][None]) ** 2).sum(axis=-1)
                    nearest[index][mine] = np.minimum(nearest[index][mine], squared.min(axis=1))

    if references:
        approach(np.concatenate(references), np.concatenate(numbers[len(frames) :]))
    order: list[int] = []
    left = list(range(len(frames)))
    while left:
        chosen = max(left, key=lambda index: float(nearest[index].max()))
        order.append(chosen)
        left.remove(chosen)
        approach(candidates[chosen], numbers[chosen])
    return order


def representations(frames: Sequence[Atoms], model: SchNet, batch_size: int = 64) -> list[Floats]:
    """The network's representation of every atom: (N, F) a frame."""
    found: list[Floats] = []
    for start in range(0, len(frames), batch_size):
        some = frames[start : start + batch_size]
        graph = batch_graphs([build_graph(geometry(atoms), model.config.pair_cutoff) for atoms in some])
        with torch.no_grad():
            filters = model.filters(torch.linalg.vector_norm(pair_vectors(graph), dim=-1))
            x = model.representation(graph.numbers, filters, graph.pairs).double().numpy()
        found += np.split(x, np.cumsum([len(atoms) for atoms in some])[:-1])
    return found
