"""Shortest distances between atoms, compared with covalent radii."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase.data import covalent_radii

from schnet_ase.data.summary.flat import Flat, Report
from schnet_ase.errors import StructureError
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.geometry.neighbors import half_neighbor_list
from schnet_ase.geometry.system import Geometry

REACH = 4.0
"""Å; pairs up to this distance are counted."""
BINS = 80
"""Bins of the histogram, from 0 to `REACH`."""
MOST_PAIRS = 100_000_000
"""Largest number of pairs of molecules that are examined."""
MOST_PERIODIC_ATOMS = 500_000
"""Largest number of atoms in periodic frames that are examined."""
_PAIRS_AT_ONCE = 2_000_000


class Distances(NamedTuple):
    """The nearest atoms of F frames; NaN, and zero for elements, for frames without a pair or not examined."""

    shortest: Floats
    """(F,) Å: distance of the pair that is shortest relative to its covalent radii."""
    relative: Floats
    """(F,) this distance divided by the sum of the two radii."""
    elements: Integers
    """(F, 2) that pair's atomic numbers, the smaller one first."""
    looked_at: Integers
    """Indices of the frames that were examined; not all if there are very many."""
    flat_cells: Integers
    """Indices of the frames that are periodic in a cell without a volume."""
    histogram: dict[tuple[int, int], Integers]
    """(BINS,) histogram of the distances of pairs of two elements."""


def distances(flat: Flat, report: Report = lambda n: None) -> Distances:
    """Find the nearest atoms of each frame; in periodic frames also across the faces of the cell.

    Parameters
    ----------
    flat
        The frames. If there are very many, as many are drawn as can be examined in seconds.
    report
        Callback for progress.
    """
    periodic = flat.pbc.any(axis=1)
    n_atoms = flat.n_atoms
    free = _some(np.flatnonzero(~periodic), n_atoms * (n_atoms - 1) // 2, MOST_PAIRS)
    bound = _some(np.flatnonzero(periodic), n_atoms, MOST_PERIODIC_ATOMS)
    nearest = _Nearest(len(flat.index), np.unique(flat.numbers))
    flat_cells = []
    for size in np.unique(n_atoms[free]):
        group = free[n_atoms[free] == size]
        for chunk in np.array_split(group, -(-len(group) * int(size) ** 2 // _PAIRS_AT_ONCE)):
            nearest.take(*_all_pairs(flat, chunk, int(size)))
            report(len(chunk))
    for f in bound:
        try:
            nearest.take(*_periodic_pairs(flat.geometry(f), int(f)))
        except StructureError:
            flat_cells.append(f)
        report(1)
    looked_at = np.sort(np.concatenate([free, bound]))
    return nearest.result(looked_at, np.array(flat_cells, dtype=np.int64))


class _Nearest:
    """The nearest pairs so far; all pairs of a frame arrive in one call."""

    def __init__(self, n_frames: int, present: Integers) -> None:
        self._present = present
        self._shortest = np.full(n_frames, np.nan)
        self._relative = np.full(n_frames, np.nan)
        self._elements = np.zeros((n_frames, 2), dtype=np.int64)
        self._counts = np.zeros((len(present), len(present), BINS), dtype=np.int64)

    def take(self, frame: Integers, first: Integers, second: Integers, length: Floats) -> None:
        """Take pairs, sorted by frame: the frame, two atomic numbers, and the distance of each."""
        if not len(frame):
            return
        relative = length / (covalent_radii[first] + covalent_radii[second])
        starts = np.concatenate([[0], np.flatnonzero(np.diff(frame)) + 1])
        lowest = np.repeat(np.minimum.reduceat(relative, starts), np.diff(np.append(starts, len(frame))))
        tight = np.flatnonzero(relative == lowest)
        best = tight[np.unique(frame[tight], return_index=True)[1]]
        self._shortest[frame[best]], self._relative[frame[best]] = length[best], relative[best]
        self._elements[frame[best]] = np.sort(np.stack([first[best], second[best]], axis=1), axis=1)
        near = length < REACH
        a, b = (np.searchsorted(self._present, numbers[near]) for numbers in (first, second))
        bins = (length[near] * (BINS / REACH)).astype(np.int64)
        places = np.ravel_multi_index((np.minimum(a, b), np.maximum(a, b), bins), self._counts.shape)
        self._counts += np.bincount(places, minlength=self._counts.size).reshape(self._counts.shape)

    def result(self, looked_at: Integers, flat_cells: Integers) -> Distances:
        histogram = {
            (int(self._present[a]), int(self._present[b])): self._counts[a, b]
            for a, b in np.argwhere(self._counts.any(axis=2))
        }
        return Distances(self._shortest, self._relative, self._elements, looked_at, flat_cells, histogram)


def _some(frames: Integers, cost: Integers, most: int) -> Integers:
    """Return all frames, or an even selection whose total cost is at most `most`."""
    total = int(cost[frames].sum())
    if total <= most:
        return frames
    share = max(1, int(len(frames) * most / total))
    return frames[np.linspace(0, len(frames) - 1, share).astype(np.int64)]


def _all_pairs(flat: Flat, chunk: Integers, size: int) -> tuple[Integers, Integers, Integers, Floats]:
    """Return every pair of some molecules of `size` atoms each."""
    atoms = flat.start[chunk][:, None] + np.arange(size)
    i, j = np.triu_indices(size, 1)
    numbers, positions = flat.numbers[atoms], flat.positions[atoms]
    length = np.linalg.norm(positions[:, i] - positions[:, j], axis=2)
    return np.repeat(chunk, len(i)), numbers[:, i].ravel(), numbers[:, j].ravel(), length.ravel()


def _periodic_pairs(geometry: Geometry, f: int) -> tuple[Integers, Integers, Integers, Floats]:
    """Return the pairs up to `REACH`, or farther if no two atoms are that near."""
    for reach in (REACH, 2.0 * REACH, 4.0 * REACH):
        first, second, shifts = half_neighbor_list(geometry.positions, geometry.cell, geometry.pbc, reach)
        if len(first):
            break
    vectors = geometry.positions[second] - geometry.positions[first] + shifts @ geometry.cell
    length = np.linalg.norm(vectors, axis=1)
    return np.full(len(first), f), geometry.numbers[first], geometry.numbers[second], length
