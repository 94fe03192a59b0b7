"""Frames of one system that a teacher has labelled, and the file that keeps them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schnet_ase.data import Frame
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.geometry.system import Geometry
from schnet_ase.output.files import atomic_write


class Labelled(NamedTuple):
    """F frames of N atoms, labelled by the mean of an ensemble."""

    numbers: Integers
    """(N,) atomic numbers."""
    pbc: NDArray[np.bool_]
    """(3,) which directions are periodic."""
    cell: Floats
    """(F, 3, 3) Å."""
    positions: Floats
    """(F, N, 3) Å."""
    energy: Floats
    """(F,) eV."""
    forces: Floats
    """(F, N, 3) eV/Å."""
    stress: Floats
    """(F, 6) eV/Å³ in ASE's order; (F, 0) if the system is not periodic in all directions."""

    def frames(self) -> list[Frame]:
        """Return the frames in the form that training takes."""
        has_stress = self.stress.size > 0
        return [
            Frame(
                Geometry(self.numbers, self.positions[f], self.cell[f], self.pbc),
                float(self.energy[f]),
                self.forces[f],
                self.stress[f] if has_stress else None,
            )
            for f in range(len(self.energy))
        ]


def save_labelled(labelled: Labelled, file: Path) -> None:
    """Write frames to an ``.npz`` file, atomically."""
    content = io.BytesIO()
    np.savez(content, **labelled._asdict())
    atomic_write(file, content.getvalue())


def load_labelled(file: Path) -> Labelled:
    """Read a file written by `save_labelled`."""
    with np.load(file) as archive:
        return Labelled(*(archive[name] for name in Labelled._fields))
