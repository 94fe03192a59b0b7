"""Find near pairs of atoms in compiled code with linked cells, each pair once.

The search covers an atom's own cell and its neighbours, but only one of every two opposite neighbours.
"""

from __future__ import annotations

import numpy as np

from schnet_ase.engine.jit import compiled, compiled_once


@compiled
def sorted_into_cells(fractional, cells):
    """Return the cell of each atom, where the atoms of each cell begin, and the atoms in the order of their cells."""
    atoms = len(fractional)
    where = np.empty((atoms, 3), np.int64)
    start = np.zeros(cells[0] * cells[1] * cells[2] + 1, np.int64)
    for i in range(atoms):
        for a in range(3):
            # A coordinate just below 1 may be rounded up to 1.
            where[i, a] = min(int(fractional[i, a] * cells[a]), cells[a] - 1)
        start[number(where[i], cells) + 1] += 1
    start = np.cumsum(start)
    order, filled = np.empty(atoms, np.int64), start.copy()
    for i in range(atoms):
        c = number(where[i], cells)
        order[filled[c]] = i
        filled[c] += 1
    return where, start, order


@compiled
def number(cell, cells):
    """Return the number of a cell from its three coordinates."""
    return (cell[0] * cells[1] + cell[1]) * cells[2] + cell[2]


@compiled_once
def find_near(fractional, box, periodic, wraps, cells, reach, cutoff, first, second, shifts):
    """Return the number of pairs nearer than `cutoff`, and write as many as fit into the last three arrays.

    `cells` is (3,), their number along each vector of the box, and `reach` is (3,), how many cells apart two such
    atoms can be. The pairs are sorted by `first`. Shifts apply to the atoms before they were moved by `wraps`.
    """
    atoms, room = len(fractional), len(first)
    where, start, order = sorted_into_cells(fractional, cells)
    positions = np.empty((atoms, 3))  # in the order of the cells
    for k in range(atoms):
        i = order[k]
        for a in range(3):
            positions[k, a] = fractional[i, 0] * box[0, a] + fractional[i, 1] * box[1, a] + fractional[i, 2] * box[2, a]
    place = np.empty(atoms, np.int64)
    for k in range(atoms):
        place[order[k]] = k
    cell, shift = np.empty(3, np.int64), np.empty(3, np.int64)
    cutoff2, count = cutoff * cutoff, 0
    for i in range(atoms):
        x, y, z = positions[place[i], 0], positions[place[i], 1], positions[place[i], 2]
        # Take only one of two opposite steps from cell to cell: the one whose first nonzero number is positive.
        for u in range(reach[0] + 1):
            for v in range(-reach[1] if u > 0 else 0, reach[1] + 1):
                for w in range(-reach[2] if u > 0 or v > 0 else 0, reach[2] + 1):
                    cell[0], cell[1], cell[2] = where[i, 0] + u, where[i, 1] + v, where[i, 2] + w
                    beyond = False
                    for a in range(3):
                        shift[a] = cell[a] // cells[a]
                        cell[a] -= shift[a] * cells[a]
                        beyond |= shift[a] != 0 and not periodic[a]
                    if beyond:
                        continue
                    sx = shift[0] * box[0, 0] + shift[1] * box[1, 0] + shift[2] * box[2, 0] - x
                    sy = shift[0] * box[0, 1] + shift[1] * box[1, 1] + shift[2] * box[2, 1] - y
                    sz = shift[0] * box[0, 2] + shift[1] * box[1, 2] + shift[2] * box[2, 2] - z
                    own = u == 0 and v == 0 and w == 0
                    c = number(cell, cells)
                    for k in range(start[c], start[c + 1]):
                        dx, dy, dz = positions[k, 0] + sx, positions[k, 1] + sy, positions[k, 2] + sz
                        j = order[k]
                        if dx * dx + dy * dy + dz * dz < cutoff2 and (j > i or not own):
                            if count < room:
                                first[count], second[count] = i, j
                                for a in range(3):
                                    shifts[count, a] = shift[a] + wraps[i, a] - wraps[j, a]
                            count += 1
    return count
