"""Which frames to label: those whose surroundings of atoms are farthest from all that is labelled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.graph import batch_graphs, build_graph, pair_vectors
from schnet_ase.geometry.system import geometry
from schnet_ase.networks import SchNet

NEAR = 0.1
"""Times the usual distance of labelled frames from each other: a frame nearer to one than this is that one again."""


def farthest_first(frames: Sequence[Atoms], known: Sequence[Atoms], model: SchNet) -> list[int]:
    """An order of `frames` in which each is the farthest from `known` and from those before it; copies are left out.

    The distance of a frame from a set is that of its strangest atom: the largest, over its atoms, of the smallest
    distance between the network's representation of this atom and one of the same element in the set. Summed over
    atoms, one stretched bond would drown in the others' noise.

    A frame that is hardly farther from the set than not at all is left out: its label would tell nothing, and a member
    could be calibrated on what it was all but trained on. The measure is the median distance of a known frame from the
    others.

    Parameters
    ----------
    frames
        To be put in order.
    known
        Frames that are labelled, or cannot be.
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
    everything = [_Atoms(atoms.numbers, x) for atoms, x in zip((*frames, *known), features, strict=True)]
    candidates, labelled = everything[: len(frames)], everything[len(frames) :]
    least = NEAR * _usual_distance(labelled)
    joined = _together(labelled) if labelled else None
    nearest = [np.full(len(c.x), np.inf) if joined is None else _to_nearest(c, joined) for c in candidates]
    order: list[int] = []
    left = list(range(len(frames)))
    while left:
        chosen = max(left, key=lambda index: float(nearest[index].max()))
        if nearest[chosen].max() <= least:
            break
        order.append(chosen)
        left.remove(chosen)
        for index in left:
            nearest[index] = np.minimum(nearest[index], _to_nearest(candidates[index], candidates[chosen]))
    return order


class _Atoms(NamedTuple):
    numbers: NDArray[np.int64]
    x: Floats
    """(N, F) representations."""


def _together(frames: Sequence[_Atoms]) -> _Atoms:
    return _Atoms(np.concatenate([f.numbers for f in frames]), np.concatenate([f.x for f in frames]))


def _to_nearest(atoms: _Atoms, others: _Atoms) -> Floats:
    """Distance of each atom from the nearest other one of its element; infinite where there is none."""
    distances = cdist(atoms.x, others.x)
    distances[atoms.numbers[:, None] != others.numbers] = np.inf
    nearest: Floats = distances.min(axis=1)
    return nearest


def _usual_distance(frames: Sequence[_Atoms]) -> float:
    """Median distance of a frame from the set of the others; 0 where that means nothing."""
    if len(frames) < 2:
        return 0.0
    others = (_together([*frames[:k], *frames[k + 1 :]]) for k in range(len(frames)))
    found = [float(_to_nearest(frame, rest).max()) for frame, rest in zip(frames, others, strict=True)]
    finite = [distance for distance in found if math.isfinite(distance)]
    return float(np.median(finite)) if finite else 0.0


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
