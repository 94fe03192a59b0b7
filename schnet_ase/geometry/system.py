"""One system: which atoms are where."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from schnet_ase.geometry.arrays import Floats, Integers

FLAT = 1e-12  # of the volume of a rectangular cell with the same edges


class Geometry(NamedTuple):
    """Where which atoms are: what a neighbour list, and an energy, depend on."""

    numbers: Integers
    positions: Floats
    cell: Floats
    pbc: NDArray[np.bool_]

    def copy(self) -> Geometry:
        """The same in arrays of its own."""
        return Geometry(self.numbers.copy(), self.positions.copy(), self.cell.copy(), self.pbc.copy())


def geometry(atoms: Atoms) -> Geometry:
    """What the energy of `atoms` depends on: their own arrays, not copies."""
    positions = np.ascontiguousarray(atoms.positions, dtype=np.float64)
    return Geometry(atoms.numbers, positions, atoms.cell.array, atoms.pbc)


def cell_volume(cell: Floats) -> float:
    """Å³, and 0 where the vectors span none but by rounding, whichever directions are periodic.

    As numbers of Python's, since the libraries behind `np.linalg` would come from slow memory for each call.
    """
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = cell.tolist()
    volume = abs(ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx))
    edges = math.hypot(ax, ay, az) * math.hypot(bx, by, bz) * math.hypot(cx, cy, cz)
    return volume if volume > FLAT * edges else 0.0
