"""The neighbour list for dynamics.

matscipy's search, behind `neighbors.half_neighbor_list`, is several times as slow as this one, for many atoms more than
ten times (``benchmarks/micro.py neighbors``). In dynamics a list lasts for some tens of steps, so that its making would
be a good part of them, and one that threads do not share.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from schnet_ase.engine.cells import find_near
from schnet_ase.geometry import neighbors
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.geometry.neighbors import HalfNeighbors, has_all_pairs, in_box

MARGIN = 1e-9
"""Relative margin of a cell's width, so that rounding loses no pair."""
MAX_CELLS_AN_ATOM = 8
"""Largest number of cells per atom; in a box that is mostly empty, cells are wider."""


def compiled_half_list(positions: Floats, cell: Floats, pbc: NDArray[np.bool_], cutoff: float | None) -> HalfNeighbors:
    """Find the pairs of `neighbors.half_neighbor_list`; either atom of a pair may come first."""
    if cutoff is None or has_all_pairs(len(positions), pbc, cutoff):
        return neighbors.half_neighbor_list(positions, cell, pbc, cutoff)
    found = in_box(positions, cell, pbc, cutoff)
    # In one order in memory, because Numba compiles a function anew for each.
    fractional, box = np.ascontiguousarray(found.fractional), np.ascontiguousarray(found.box)
    wraps = np.ascontiguousarray(found.wraps)
    cells, reach = _cells(box, cutoff, MAX_CELLS_AN_ATOM * len(positions))
    # Room for uniformly distributed atoms, and a tenth more, is usually enough.
    room = int(1.1 * len(positions) ** 2 * (2.0 / 3.0) * math.pi * cutoff**3 / abs(np.linalg.det(box)))
    while True:
        first, second, shifts = (np.empty((room, *shape), np.int64) for shape in ((), (), (3,)))
        count = find_near(fractional, box, pbc, wraps, cells, reach, cutoff, first, second, shifts)
        if count <= room:
            return HalfNeighbors(first[:count], second[:count], shifts[:count])
        room = count


def _cells(box: Floats, cutoff: float, most: int) -> tuple[Integers, Integers]:
    """Return the number of cells along each vector of the box, at least a cutoff wide, and how many a cutoff spans."""
    heights = 1.0 / np.linalg.norm(np.linalg.inv(box), axis=0)
    cells = np.maximum(heights / cutoff * (1.0 - MARGIN), 1.0)
    while np.prod(np.floor(cells)) > most:
        cells = np.maximum(cells / 2.0, 1.0)
    cells = np.floor(cells).astype(np.int64)
    return cells, np.ceil(cutoff * cells / heights * (1.0 + 0.5 * MARGIN)).astype(np.int64)
