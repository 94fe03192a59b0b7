"""Select the frames to label: those with an atom whose surroundings are farthest from all labelled ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from schnet_ase.geometry.arrays import Floats
from schnet_ase.inference.representation import representations
from schnet_ase.networks import SchNet

NEAR = 0.1
"""Share of the usual distance between labelled frames; a frame nearer than this to another counts as its copy."""


def farthest_first(frames: Sequence[Atoms], known: Sequence[Atoms], model: SchNet) -> list[int]:
    """Order `frames` so that each is the farthest from `known` and from those before it; leave out copies.

    The distance of a frame from a set is that of its most different atom: the largest, over its atoms, of the smallest
    distance between the network's representations of this atom and of one of the same element in the set. In a sum over
    atoms, one stretched bond would disappear in the noise of the others.

    A frame that is very near to the set is left out, because its label would add nothing, and the ensemble could be
    calibrated on what a member was nearly trained on. The scale is the median distance of a known frame from the
    others.

    Parameters
    ----------
    frames
        Frames to sort.
    known
        Frames that are labelled, or that the reference cannot label.
    model
        Network whose representation is used.

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
    """Return the distance of each atom from the nearest other atom of its element; infinite if there is none."""
    distances = cdist(atoms.x, others.x)
    distances[atoms.numbers[:, None] != others.numbers] = np.inf
    nearest: Floats = distances.min(axis=1)
    return nearest


def _usual_distance(frames: Sequence[_Atoms]) -> float:
    """Return the median distance of a frame from the set of the others; 0 if there are too few."""
    if len(frames) < 2:
        return 0.0
    others = (_together([*frames[:k], *frames[k + 1 :]]) for k in range(len(frames)))
    found = [float(_to_nearest(frame, rest).max()) for frame, rest in zip(frames, others, strict=True)]
    finite = [distance for distance in found if math.isfinite(distance)]
    return float(np.median(finite)) if finite else 0.0
