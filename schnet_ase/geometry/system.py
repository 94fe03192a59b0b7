"""One system: which atoms are where."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from schnet_ase.geometry.arrays import Floats, Integers


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
