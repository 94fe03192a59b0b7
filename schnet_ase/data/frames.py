"""Labelled frames: geometries with energies and forces, checked before anything is fitted to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike

from schnet_ase.errors import DataError
from schnet_ase.neighbors import Floats, Geometry, Integers


class Frame(NamedTuple):
    """One labelled geometry, eV and Å. A label that the file does not hold is None."""

    geometry: Geometry
    energy: float | None
    """eV."""
    forces: Floats | None
    """(N, 3) eV/Å."""
    stress: Floats | None = None
    """(6,) eV/Å³ in ASE's order (xx, yy, zz, yz, xz, xy) and sign: positive where the cell wants to shrink."""
    weight: float = 1.0
    """How much the frame counts in the loss, as its file says."""
    config_type: str = ""
    """The kind of configuration that its file names, such as ``"IsolatedAtom"``; empty where it names none."""

    def atoms(self) -> Atoms:
        """The geometry as ASE atoms, without labels."""
        numbers, positions, cell, pbc = self.geometry
        return Atoms(numbers=numbers, positions=positions, cell=cell, pbc=pbc)


class Dataset(NamedTuple):
    """Frames of one file."""

    frames: Sequence[Frame]
    """A list, or read from disk when asked for: see `read_dataset` and `stored_dataset`."""
    source: str
    """The file's name."""
    sha256: str
    """Of the file."""
    units: str
    """The units the file was assumed to be in, in words."""
    parts: tuple[str, ...] = ()
    """SHA-256 of each file, where a pattern stands for several; else of the data, where a list leaves some out."""

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
    """Which molecule each frame is of, counted from 0 in the order they come in: the same atoms in the same order.

    Parameters
    ----------
    numbers
        Of each frame, (N,) atomic numbers.
    """
    known: dict[bytes, int] = {}
    return np.array([known.setdefault(n.tobytes(), len(known)) for n in numbers], dtype=np.int64)


def check_frames(frames: Iterable[Frame], source: str, *, energies: bool, forces: bool) -> None:
    """Refuse labels nothing should be fitted to.

    Parameters
    ----------
    frames
        Frames as read.
    source
        The file's name, for the message.
    energies, forces
        Which labels are needed.

    Raises
    ------
    DataError
        No frames; no atoms; positions or labels that are missing, NaN or of the wrong shape; forces of several atoms
        that are all zero, or energies that are zero in every frame. The message names the frame, counted from 0.
    """
    for _ in checked_frames(frames, source, energies=energies, forces=forces):
        pass


def checked_frames(frames: Iterable[Frame], source: str, *, energies: bool, forces: bool) -> Iterator[Frame]:
    """The same frames, each checked as it passes; parameters and errors of `check_frames`."""
    n_frames, any_energy = 0, False
    for index, frame in enumerate(frames):
        n_frames, any_energy = index + 1, any_energy or bool(frame.energy)
        check_frame(frame, f"{source}: frame {index}", energies=energies, forces=forces)
        yield frame
    if not n_frames:
        raise DataError(f"{source}: no frames; expected at least one")
    if energies and not any_energy:
        raise DataError(f"{source}: frame 0 and all others have energy zero: labels were not written")


def check_frame(frame: Frame, where: str, *, energies: bool, forces: bool) -> None:
    """The part of `check_frames` that looks at one frame, named by `where`."""
    n_atoms = len(frame.geometry.numbers)
    if n_atoms == 0:
        raise DataError(f"{where} has no atoms; remove it")
    if frame.geometry.positions.shape != (n_atoms, 3):
        raise DataError(f"{where} has positions of shape {frame.geometry.positions.shape}; expected ({n_atoms}, 3)")
    if not np.isfinite(frame.geometry.positions).all():
        raise DataError(f"{where} has NaN or infinite positions; remove it")
    if energies:
        if frame.energy is None:
            raise DataError(f"{where} has no energy; expected one per frame, or set energy_weight = 0")
        if not np.isfinite(frame.energy):
            raise DataError(f"{where} has energy {frame.energy}; expected a finite number, remove the frame")
    if forces:
        if frame.forces is None:
            raise DataError(f"{where} has no forces; expected ({n_atoms}, 3), or set force_weight = 0")
        if frame.forces.shape != (n_atoms, 3):
            raise DataError(f"{where} has forces of shape {frame.forces.shape}; expected ({n_atoms}, 3)")
        if not np.isfinite(frame.forces).all():
            raise DataError(f"{where} has NaN or infinite forces; remove it")
        if n_atoms > 1 and not frame.forces.any():
            raise DataError(f"{where} has forces that are all zero: labels were not written; remove the frame")
