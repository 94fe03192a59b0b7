"""Every pair within reach, one by one."""

import itertools

import numpy as np

from schnet_ase.geometry.neighbors import (
    HalfNeighbors,
    Neighbors,
)

Pair = tuple[int, int, int, int, int]
ALL_PBC = list(itertools.product([False, True], repeat=3))


def reference(positions: np.ndarray, cell: np.ndarray, pbc: object, cutoff: float) -> dict[Pair, float]:
    """Every (i, j, S) nearer than `cutoff` with its distance, from all images that could be near."""
    pbc = np.asarray(pbc, dtype=bool)
    vectors = np.where(pbc[:, None], cell, 0.0)
    reach = np.zeros(3, dtype=int)
    if pbc.any():
        # |S_k| <= |r| |b_k| with b_k the dual vectors within the span of the periodic ones.
        dual = np.linalg.norm(np.linalg.pinv(vectors[pbc]), axis=0)
        reach[pbc] = np.ceil((np.linalg.norm(np.ptp(positions, axis=0)) + cutoff) * dual)
    found = {}
    for image in itertools.product(*(range(-k, k + 1) for k in reach)):
        offsets = positions[None] + np.array(image) @ vectors - positions[:, None]
        distances = np.linalg.norm(offsets, axis=-1)
        for i, j in np.argwhere(distances < cutoff).tolist():
            if i != j or image != (0, 0, 0):
                found[i, j, *image] = float(distances[i, j])
    return found


def as_set(neighbors: Neighbors | HalfNeighbors) -> set[Pair]:
    first, second, shifts = neighbors
    pairs = [(i, j, *S) for i, j, S in zip(first.tolist(), second.tolist(), shifts.tolist(), strict=True)]
    assert len(set(pairs)) == len(pairs), "a pair is listed twice"
    return set(pairs)
