"""Frames whose labels are less by the energy terms that a network does not learn."""

from __future__ import annotations

from collections.abc import Sequence

from ase.stress import full_3x3_to_voigt_6_stress

from schnet_ase.data.frames import Frame
from schnet_ase.data.stored import StoredFrames
from schnet_ase.errors import DataError, StructureError
from schnet_ase.geometry.arrays import Integers
from schnet_ase.geometry.neighbors import HalfNeighbors, half_neighbor_list
from schnet_ase.geometry.system import cell_volume
from schnet_ase.priors import Contribution, Term, total


def without_terms(frames: Sequence[Frame], terms: Sequence[Term], cutoff: float | None) -> Sequence[Frame]:
    """Frames with energies, forces and stress less by some terms; the same frames where there are no terms.

    Parameters
    ----------
    frames
        Those of a store stay on disk, and each is changed whenever it is asked for.
    terms
        What is subtracted.
    cutoff
        Of the network, Å; None: every pair.

    Raises
    ------
    DataError
        A term cannot be evaluated on a frame; the message names it.
    """
    if not terms:
        return frames
    if isinstance(frames, StoredFrames):
        return _ReducedStore(frames, terms)
    return [_less(frame, contribution(terms, frames, i, cutoff)) for i, frame in enumerate(frames)]


def contribution(terms: Sequence[Term], frames: Sequence[Frame], index: int, cutoff: float | None) -> Contribution:
    """What some terms say of a frame.

    Raises
    ------
    DataError
        They cannot be evaluated on it.
    """
    frame = frames[index]
    _, positions, cell, pbc = frame.geometry
    return _of_frame(terms, frame, index, half_neighbor_list(positions, cell, pbc, cutoff))


class _ReducedStore(StoredFrames):
    """The frames of a store, each less by some terms."""

    def __init__(self, stored: StoredFrames, terms: Sequence[Term]) -> None:
        super().__init__(stored._folder, stored.cutoff, stored._chosen)
        self._terms = terms

    def subset(self, indices: Integers) -> StoredFrames:
        return _ReducedStore(super().subset(indices), self._terms)

    def _frame(self, chosen: int) -> Frame:
        frame = super()._frame(chosen)
        return _less(frame, _of_frame(self._terms, frame, chosen, self.neighbors(chosen)))


def _of_frame(terms: Sequence[Term], frame: Frame, index: int, pairs: HalfNeighbors) -> Contribution:
    try:
        return total(terms, frame.geometry, pairs)
    except StructureError as error:
        raise DataError(f"frame {index}: {error}") from error


def _less(frame: Frame, part: Contribution) -> Frame:
    volume, stress = cell_volume(frame.geometry.cell), frame.stress
    if stress is not None and volume:
        stress = stress - full_3x3_to_voigt_6_stress(part.virial) / volume
    return frame._replace(
        energy=None if frame.energy is None else frame.energy - float(part.energies.sum()),
        forces=None if frame.forces is None else frame.forces - part.forces,
        stress=stress,
    )
