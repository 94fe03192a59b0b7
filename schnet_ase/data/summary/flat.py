"""Frames as a few long arrays, so that a quantity of a hundred thousand frames is computed at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from schnet_ase.data.frames import Dataset
from schnet_ase.errors import DataError
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.geometry.system import Geometry

Bools = NDArray[np.bool_]
Report = Callable[[int], None]
"""Callback that receives the number of frames done since its last call."""


@dataclass(frozen=True)
class Flat:
    """F frames with A atoms in total, eV and Å; the atoms of a frame follow one another."""

    index: Integers
    """(F,) the number of each frame in its file."""
    start: Integers
    """(F + 1,) index of the first atom of each frame, and the number of atoms."""
    numbers: Integers
    """(A,) atomic numbers."""
    positions: Floats
    """(A, 3) Å."""
    cell: Floats
    """(F, 3, 3) Å, a lattice vector per row."""
    pbc: Bools
    """(F, 3) whether the frame is periodic along each lattice vector."""
    energy: Floats
    """(F,) eV; NaN where the file has no finite energy."""
    forces: Floats
    """(A, 3) eV/Å; NaN for the whole frame if a component is missing or not finite."""
    stress: Floats
    """(F, 6) eV/Å³; NaN for the whole frame if a component is missing or not finite."""

    @property
    def n_atoms(self) -> Integers:
        """(F,) number of atoms of each frame."""
        return np.diff(self.start)

    @property
    def frame(self) -> Integers:
        """(A,) index of the frame of each atom."""
        return np.repeat(np.arange(len(self.index)), self.n_atoms)

    @property
    def free_atoms(self) -> Bools:
        """(F,) whether a frame is a single atom."""
        return np.asarray((self.n_atoms == 1) & ~self.pbc.any(axis=1))

    @property
    def force_norms(self) -> Floats:
        """(A,) eV/Å, also for forces whose squares overflow."""
        x, y, z = self.forces.T
        return np.asarray(np.hypot(np.hypot(x, y), z), dtype=np.float64)

    def sums(self, values: NDArray[np.float64]) -> Floats:
        """Sum values of atoms over each frame, from (A, ...) to (F, ...)."""
        return np.asarray(np.add.reduceat(values, self.start[:-1], axis=0), dtype=np.float64)

    def largest(self, values: Floats) -> Floats:
        """Return the largest value of each frame, from (A,) to (F,); NaN if one of them is NaN."""
        return np.asarray(np.maximum.reduceat(values, self.start[:-1]), dtype=np.float64)

    def geometry(self, f: int) -> Geometry:
        """Return the geometry of frame `f` of the F."""
        atoms = slice(int(self.start[f]), int(self.start[f + 1]))
        return Geometry(self.numbers[atoms], self.positions[atoms], self.cell[f], self.pbc[f])


class Found(NamedTuple):
    """The frames that hold one kind of label, by their numbers in the file, counted from 0."""

    have: Integers
    """The frames that have the label."""
    not_finite: Integers
    """Those whose label contains a NaN or an infinite number."""
    misshapen: Integers
    """Those whose label has the wrong shape."""


class Flattened(NamedTuple):
    """Frames as arrays, and the frames and labels that do not fit into them."""

    flat: Flat
    energy: Found
    forces: Found
    stress: Found
    broken: Integers
    """Frames without atoms, with an unknown element, or with positions or a cell that are not finite."""


def flatten(dataset: Dataset, report: Report = lambda n: None) -> Flattened:
    """Put the frames of a data set into arrays.

    Parameters
    ----------
    dataset
        Data set as read, unchecked.
    report
        Callback for progress.

    Raises
    ------
    DataError
        No frame has atoms of known elements at finite positions.
    """
    kept: list[_Kept] = []
    energy, forces, stress = _Labels(), _Labels(), _Labels()
    for index, frame in enumerate(dataset.frames):
        n_atoms = len(frame.geometry.numbers)
        labels = (
            energy.shaped(frame.energy, (), index),
            forces.shaped(frame.forces, (n_atoms, 3), index),
            stress.shaped(frame.stress, (6,), index),
        )
        if n_atoms and frame.geometry.positions.shape == (n_atoms, 3):
            kept.append(_Kept(index, frame.geometry, *labels))
        if index % 1000 == 999:
            report(1000)
    report(len(dataset.frames) % 1000)
    flat = _joined(kept) if kept else None
    if flat is not None and not (sound := _are_sound(flat)).all():
        kept = [frame for frame, whole in zip(kept, sound, strict=True) if whole]
        flat = _joined(kept) if kept else None
    if flat is None:
        raise DataError(f"{dataset.source}: no frame has known elements at finite positions; nothing can be said of it")
    broken = np.setdiff1d(np.arange(len(dataset.frames)), flat.index)
    by_atom = np.isfinite(flat.forces).all(axis=1)
    has_forces: Bools = np.asarray(np.logical_and.reduceat(by_atom, flat.start[:-1]))
    flat.energy[~np.isfinite(flat.energy)] = np.nan
    flat.forces[~np.repeat(has_forces, flat.n_atoms)] = np.nan
    has_stress: Bools = np.asarray(np.isfinite(flat.stress).all(axis=1))
    flat.stress[~has_stress] = np.nan
    return Flattened(
        flat,
        energy.found(flat, np.isfinite(flat.energy)),
        forces.found(flat, has_forces),
        stress.found(flat, has_stress),
        broken,
    )


class _Kept(NamedTuple):
    """A frame whose arrays have the right shapes, with NaN for missing labels."""

    number: int
    geometry: Geometry
    energy: Floats
    forces: Floats
    stress: Floats


def _joined(kept: list[_Kept]) -> Flat:
    index, geometries, energy, forces, stress = zip(*kept, strict=True)
    n_atoms = [len(g.numbers) for g in geometries]
    return Flat(
        np.array(index, dtype=np.int64),
        np.concatenate([[0], np.cumsum(n_atoms)]).astype(np.int64),
        np.concatenate([g.numbers for g in geometries]).astype(np.int64),
        np.concatenate([g.positions for g in geometries]),
        np.stack([g.cell for g in geometries]),
        np.stack([g.pbc for g in geometries]),
        np.array(energy, dtype=np.float64),
        np.concatenate(forces),
        np.stack(stress),
    )


class _Labels:
    """Records of one kind of label, frame by frame."""

    def __init__(self) -> None:
        self._have: list[int] = []
        self._misshapen: list[int] = []

    def shaped(self, label: object, shape: tuple[int, ...], index: int) -> Floats:
        """Return the label of a frame if it has the right shape, otherwise NaN."""
        if label is not None:
            self._have.append(index)
            array: Floats = np.asarray(label, dtype=np.float64)
            if array.shape == shape:
                return array
            self._misshapen.append(index)
        return np.full(shape, np.nan)

    def found(self, flat: Flat, finite: Bools) -> Found:
        """Return which frames have the label, given whether it is finite in the frames that were kept."""
        have, misshapen = np.array(self._have, dtype=np.int64), np.array(self._misshapen, dtype=np.int64)
        return Found(have, np.setdiff1d(np.intersect1d(have, flat.index[~finite]), misshapen), misshapen)


def _are_sound(flat: Flat) -> Bools:
    """Return (F,) whether a frame has known elements, and finite positions and cell."""
    atoms = np.isfinite(flat.positions).all(axis=1) & (flat.numbers > 0) & (flat.numbers < len(chemical_symbols))
    return np.asarray(np.logical_and.reduceat(atoms, flat.start[:-1]) & np.isfinite(flat.cell).all(axis=(1, 2)))
