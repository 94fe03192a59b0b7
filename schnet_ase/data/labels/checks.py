"""Refuse labels that nothing should be fitted to, and count missing labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols

from schnet_ase.data.frames import Frame
from schnet_ase.errors import DataError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.neighbors import half_neighbor_list

NEARLY_ALL = 0.95
"""Share of frames with zero labels above which the labels count as not written."""
_LOOKED_AT = 10
"""Number of frames with zero forces in which the surroundings of the atoms are examined."""
_REACH = 6.0
"""Å; atoms farther away do not count as surroundings."""


class Missing(NamedTuple):
    """Numbers of frames that lack a label that is needed."""

    n_frames: int
    energy: int
    forces: int
    """Frames of single atoms do not count: their force is zero."""
    stress: int
    """Only frames that are periodic in three directions count."""
    unlabelled: int
    """Frames that have none of the labels that are needed."""

    def line(self, source: str) -> str:
        """Return the line for a user, how many frames lack which label; empty if none does."""
        lacks = [
            f"{count:,} lack{'s' if count == 1 else ''} {what}"
            for count, what in ((self.energy, "an energy"), (self.forces, "forces"), (self.stress, "a stress"))
            if count
        ]
        if not lacks:
            return ""
        if self.unlabelled:
            one = self.unlabelled == 1
            none = f"{self.unlabelled:,} {'has' if one else 'have'} no label that is needed"
            lacks[-1] += f"; {none} and {'counts' if one else 'count'} for nothing"
        return f"{source}: of {self.n_frames:,} frames {', '.join(lacks)}"


def check_frames(
    frames: Iterable[Frame],
    source: str,
    *,
    energies: bool,
    forces: bool,
    stress: bool = False,
    keys: Sequence[str] = (),
) -> Missing:
    """Refuse labels that nothing should be fitted to, and count missing labels.

    Frames may lack a label that is needed, as long as some frame has it. Labels that are exactly zero count as not
    written if nearly all frames have them (`NEARLY_ALL`). This applies to energies, to stresses, and to forces of
    frames of several atoms in which some atom has different surroundings on opposite sides: in a perfect crystal, and
    between atoms that are out of each other's reach, forces are zero.

    Parameters
    ----------
    frames
        Frames as read.
    source
        The file's name, for the message.
    energies, forces, stress
        Which labels are needed.
    keys
        Names that the file holds, for the message about a missing label.

    Returns
    -------
    Missing
        How many frames lack which label. A single atom without forces lacks nothing, and neither does a frame without a
        stress that is not periodic in three directions.

    Raises
    ------
    DataError
        There are no frames or no atoms; positions or labels are NaN or have the wrong shape; no frame has a label that
        is needed; or labels are zero in nearly all frames. The message names the frame, counted from 0.
    """
    counts = _Counts(energies, forces, stress)
    for index, frame in enumerate(frames):
        check_frame(frame, f"{source}: frame {index}", energies=energies, forces=forces, stress=stress)
        counts.add(frame)
    if not counts.n_frames:
        raise DataError(f"{source}: no frames; expected at least one")
    counts.check_there(source, keys)
    counts.check_zeros(source)
    return counts.missing()


def lacks_label(frame: Frame, *, energies: bool, forces: bool, stress: bool = False) -> bool:
    """Return whether a frame lacks a label that is needed, by the rules of `check_frames`."""
    return (
        (energies and frame.energy is None)
        or (forces and frame.forces is None and len(frame.geometry.numbers) > 1)
        or (stress and frame.stress is None and bool(frame.geometry.pbc.all()))
    )


def check_frame(frame: Frame, where: str, *, energies: bool, forces: bool, stress: bool = False) -> None:
    """Check one frame, named by `where`, as `check_frames` does; missing labels are accepted."""
    n_atoms = len(frame.geometry.numbers)
    if n_atoms == 0:
        raise DataError(f"{where} has no atoms; remove it")
    if frame.geometry.positions.shape != (n_atoms, 3):
        raise DataError(f"{where} has positions of shape {frame.geometry.positions.shape}; expected ({n_atoms}, 3)")
    if not np.isfinite(frame.geometry.positions).all():
        raise DataError(f"{where} has NaN or infinite positions; remove it")
    if not 0 < frame.geometry.numbers.min() <= frame.geometry.numbers.max() < len(chemical_symbols):
        strange = next(z for z in frame.geometry.numbers if not 0 < z < len(chemical_symbols))
        raise DataError(f"{where} has an atom of number {strange}, which is no element; correct it")
    if energies and frame.energy is not None and not np.isfinite(frame.energy):
        raise DataError(f"{where} has energy {frame.energy}; expected a finite number, remove the frame")
    for needed, name, label, shape in (
        (forces, "forces", frame.forces, (n_atoms, 3)),
        (stress, "a stress", frame.stress, (6,)),
    ):
        if needed and label is not None:
            if label.shape != shape:
                raise DataError(f"{where} has {name} of shape {label.shape}; expected {shape}")
            if not np.isfinite(label).all():
                raise DataError(f"{where} has NaN or infinite numbers in its {name.split()[-1]}; remove it")


def with_whole_labels(frames: Iterable[Frame], source: str) -> Iterator[Frame]:
    """Yield the same frames; check that a store can hold each.

    Raises
    ------
    DataError
        A frame has no atoms, positions, forces or a stress of the wrong shape, or positions that are not finite.
    """
    for index, frame in enumerate(frames):
        where = f"{source}: frame {index}"
        check_frame(frame, where, energies=False, forces=False)
        shape = frame.geometry.positions.shape
        if frame.forces is not None and frame.forces.shape != shape:
            raise DataError(f"{where} has forces of shape {frame.forces.shape}; expected {shape}")
        yield frame


class _Label:
    """Counts of one kind of label over the frames so far."""

    def __init__(self, needed: bool) -> None:
        self.needed = needed
        self.there = self.lacking = self.zero = 0

    def add(self, label: Floats | float | None, wanted: bool) -> None:
        if not self.needed:
            return
        self.there += label is not None
        self.zero += label is not None and not np.any(label)
        self.lacking += label is None and wanted


class _Counts:
    """Counts over the frames so far."""

    def __init__(self, energies: bool, forces: bool, stress: bool) -> None:
        self.energy, self.forces, self.stress = _Label(energies), _Label(forces), _Label(stress)
        self.n_frames = self.unlabelled = 0
        self.looked_at, self.strange = 0, list[int]()
        """Frames of zero forces: how many were examined, and the indices of those whose forces should not be zero."""

    def add(self, frame: Frame) -> None:
        several = len(frame.geometry.numbers) > 1
        self.energy.add(frame.energy, True)
        self.stress.add(frame.stress, bool(frame.geometry.pbc.all()))
        if several:
            self.forces.add(frame.forces, True)
            self._look(frame)
        labels = ((self.energy, frame.energy), (self.forces, frame.forces), (self.stress, frame.stress))
        self.unlabelled += all(label is None for kind, label in labels if kind.needed)
        self.n_frames += 1

    def _look(self, frame: Frame) -> None:
        if self.forces.needed and frame.forces is not None and not frame.forces.any() and self.looked_at < _LOOKED_AT:
            self.looked_at += 1
            if not _balanced(frame):
                self.strange.append(self.n_frames)

    def check_there(self, source: str, keys: Sequence[str]) -> None:
        for kind, name, key, weight in (
            (self.energy, "an energy", "energy_key", "energy_weight"),
            (self.forces, "forces", "forces_key", "force_weight"),
            (self.stress, "a stress", "stress_key", "stress_weight"),
        ):
            if kind.needed and kind.lacking and not kind.there:
                held = f"the file holds {', '.join(keys)}" if keys else "the file holds nothing else"
                raise DataError(
                    f"{source}: no frame has {name}; {held}; name the label with {key}, or set {weight} = 0"
                )

    def check_zeros(self, source: str) -> None:
        if self.energy.there and self.energy.zero == self.energy.there:
            raise DataError(f"{source}: frame 0 and all others have energy zero: labels were not written")
        if len(self.strange) > 1 and self.forces.zero > NEARLY_ALL * self.forces.there:
            raise DataError(
                f"{source}: {self.forces.zero} of {self.forces.there} frames, frame {self.strange[0]} first, have "
                "forces that are all zero: labels were not written; write them, or set force_weight = 0"
            )
        if self.stress.there > 1 and self.stress.zero == self.stress.there:
            raise DataError(
                f"{source}: {self.stress.there} frames have a stress, and all are zero: labels were not written; "
                "write them, or set stress_weight = 0"
            )

    def missing(self) -> Missing:
        return Missing(self.n_frames, self.energy.lacking, self.forces.lacking, self.stress.lacking, self.unlabelled)


def _balanced(frame: Frame) -> bool:
    """Return whether the surroundings of every atom are balanced, so that by symmetry it feels no force."""
    _, positions, cell, pbc = frame.geometry
    first, second, shifts = half_neighbor_list(positions, cell, pbc, _REACH)
    vectors = positions[second] - positions[first] + shifts @ cell
    distances = np.linalg.norm(vectors, axis=1)
    weights = np.where(distances < _REACH, np.exp(-np.square(distances) / 8.0), 0.0)[:, None]
    pull: Floats = np.zeros_like(positions)
    np.add.at(pull, first, weights * vectors)
    np.subtract.at(pull, second, weights * vectors)
    return float(np.abs(pull).max(initial=0.0)) < 1e-3
