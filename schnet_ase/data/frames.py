"""Labelled frames: geometries with energies, forces and stress."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike

from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.geometry.system import Geometry


class Frame(NamedTuple):
    """One labelled geometry, eV and Å. A label that the file does not hold is None."""

    geometry: Geometry
    """Atomic numbers, positions, cell and periodicity."""
    energy: float | None
    """Energy, eV."""
    forces: Floats | None
    """(N, 3) forces, eV/Å."""
    stress: Floats | None = None
    """(6,) stress, eV/Å³, in ASE's order (xx, yy, zz, yz, xz, xy) and sign: positive if the cell tends to shrink."""
    weight: float = 1.0
    """Weight of the frame in the loss, as its file states it."""
    config_type: str = ""
    """Kind of configuration stated in its file, such as ``"IsolatedAtom"``; empty if none is stated."""
    split: str = ""
    """Subset to which its file assigns the frame, such as ``"test"``; empty if none is stated."""

    def atoms(self) -> Atoms:
        """Return the geometry as ASE atoms, without labels."""
        numbers, positions, cell, pbc = self.geometry
        return Atoms(numbers=numbers, positions=positions, cell=cell, pbc=pbc)


class Dataset(NamedTuple):
    """Frames of one file."""

    frames: Sequence[Frame]
    """A list (`read_dataset`), or frames that are read from disk on request (`stored_dataset`)."""
    source: str
    """The file's name."""
    sha256: str
    """SHA-256 of the file."""
    units: str
    """The units the file was assumed to be in, in words."""
    parts: tuple[str, ...] = ()
    """SHA-256 of each file if a pattern stands for several, or of the whole file if some frames are left out."""
    labels: str = ""
    """The labels that were found, with their keys and units, in words."""
    keys: tuple[str, ...] = ()
    """Names of everything that the file holds besides the atoms, such as ``info['REF_energy']``."""
    notes: tuple[str, ...] = ()
    """Sentences on how the file was read that a user should know."""

    @property
    def elements(self) -> tuple[int, ...]:
        """The atomic numbers that occur, ascending."""
        return elements_of(self.frames)


def elements_of(frames: Iterable[Frame]) -> tuple[int, ...]:
    """The atomic numbers that occur in some frames, ascending."""
    found: set[int] = set()
    for frame in frames:
        found.update(frame.geometry.numbers.tolist())
    return tuple(sorted(found))


def formula(numbers: ArrayLike) -> str:
    """The chemical formula of some atomic numbers in Hill's order."""
    hill: str = Atoms(numbers=np.asarray(numbers)).get_chemical_formula()
    return hill


def formulas(frames: Iterable[Frame]) -> tuple[str, ...]:
    """The chemical formulas of some frames, each once, in alphabetical order."""
    different = {np.sort(frame.geometry.numbers.astype(np.int64)).tobytes() for frame in frames}
    return tuple(sorted(formula(np.frombuffer(numbers, dtype=np.int64)) for numbers in different))


def molecules(numbers: Iterable[Integers]) -> Integers:
    """Number the molecules (the same atoms in the same order) from 0 as they appear; return the number of each frame.

    Parameters
    ----------
    numbers
        (N,) atomic numbers of each frame.
    """
    known: dict[bytes, int] = {}
    return np.array([known.setdefault(n.tobytes(), len(known)) for n in numbers], dtype=np.int64)
