"""Labels that nothing should be fitted to are refused, and what is missing is counted."""

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
"""Share of the frames whose zero labels mean that labels were not written."""
_LOOKED_AT = 10
"""Frames of zero forces in which the surroundings of the atoms are looked at."""
_REACH = 6.0
"""Å; farther atoms do not count among the surroundings."""


class Missing(NamedTuple):
    """How many frames lack a label that is needed."""

    n_frames: int
    energy: int
    forces: int
    """A single atom needs none: its force is zero."""
    stress: int
    """Only frames that are periodic in three directions have a stress."""
    unlabelled: int
    """Frames that have no label at all that is needed."""

    def line(self, source: str) -> str:
        """What a user is told: how many frames lack which label; empty where none does."""
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
    """Refuse labels nothing should be fitted to, and count what is missing.

    Frames may lack a label that is needed, as long as some frame has it. Labels that are exactly zero are taken for
    labels that were not written where nearly all frames have them (`NEARLY_ALL`): energies; stresses; and forces of
    frames of several atoms in which an atom is not surrounded alike on opposite sides, for in a perfect crystal, and
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
        Names that the file holds, for the message where a label is not there.

    Returns
    -------
    Missing
        How many frames lack what. A single atom without forces lacks nothing, nor does a frame that is not periodic in
        three directions and has no stress.

    Raises
    ------
    DataError
        No frames; no atoms; positions or labels that are NaN or of the wrong shape; a label that is needed and that no
        frame has; labels that are zero in nearly all frames. The message names the frame, counted from 0.
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
    """Whether a frame has not all labels that are needed, by the rules of `check_frames`."""
    return (
        (energies and frame.energy is None)
        or (forces and frame.forces is None and len(frame.geometry.numbers) > 1)
        or (stress and frame.stress is None and bool(frame.geometry.pbc.all()))
    )


def check_frame(frame: Frame, where: str, *, energies: bool, forces: bool, stress: bool = False) -> None:
    """The part of `check_frames` that looks at one frame, named by `where`; labels that are not there pass."""
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
    """The same frames, each checked as it passes for what no store can hold.

    Raises
    ------
    DataError
        A frame without atoms, or positions, forces or a stress of a wrong shape, or positions that are not finite.
    """
    for index, frame in enumerate(frames):
        where = f"{source}: frame {index}"
        check_frame(frame, where, energies=False, forces=False)
        shape = frame.geometry.positions.shape
        if frame.forces is not None and frame.forces.shape != shape:
            raise DataError(f"{where} has forces of shape {frame.forces.shape}; expected {shape}")
        yield frame


class _Label:
    """One kind of label, counted while frames pass."""

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
    """What is counted while frames pass."""

    def __init__(self, energies: bool, forces: bool, stress: bool) -> None:
        self.energy, self.forces, self.stress = _Label(energies), _Label(forces), _Label(stress)
        self.n_frames = self.unlabelled = 0
        self.looked_at, self.strange = 0, list[int]()
        """Frames of zero forces: how many were looked at, and the indices of those whose forces should not be zero."""

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
    """Whether every atom sees its surroundings alike on opposite sides, so that no force is left by symmetry."""
    _, positions, cell, pbc = frame.geometry
    first, second, shifts = half_neighbor_list(positions, cell, pbc, _REACH)
    vectors = positions[second] - positions[first] + shifts @ cell
    distances = np.linalg.norm(vectors, axis=1)
    weights = np.where(distances < _REACH, np.exp(-np.square(distances) / 8.0), 0.0)[:, None]
    pull: Floats = np.zeros_like(positions)
    np.add.at(pull, first, weights * vectors)
    np.subtract.at(pull, second, weights * vectors)
    return float(np.abs(pull).max(initial=0.0)) < 1e-3
