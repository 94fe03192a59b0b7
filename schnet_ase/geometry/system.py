"""The geometry of one system."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from schnet_ase.geometry.arrays import Floats, Integers

FLAT = 1e-12  # relative to the volume of a rectangular cell with the same edges


class Geometry(NamedTuple):
    """Atomic numbers, positions, cell and periodicity: everything that a neighbour list and an energy depend on."""

    numbers: Integers
    positions: Floats
    cell: Floats
    pbc: NDArray[np.bool_]

    def copy(self) -> Geometry:
        """Return a copy with its own arrays."""
        return Geometry(self.numbers.copy(), self.positions.copy(), self.cell.copy(), self.pbc.copy())


def geometry(atoms: Atoms) -> Geometry:
    """Return the geometry of `atoms`: their own arrays, not copies."""
    positions = np.ascontiguousarray(atoms.positions, dtype=np.float64)
    return Geometry(atoms.numbers, positions, atoms.cell.array, atoms.pbc)


def cell_volume(cell: Floats) -> float:
    """Return the volume of the cell, Å³, whichever directions are periodic; 0 if only rounding gives it a volume.

    This computes with Python numbers, because the libraries behind `np.linalg` would be loaded from slow memory at each
    call.
    """
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = cell.tolist()
    volume = abs(ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx))
    edges = math.hypot(ax, ay, az) * math.hypot(bx, by, bz) * math.hypot(cx, cy, cz)
    return volume if volume > FLAT * edges else 0.0
