"""The first frames of a run, and the labels that some of them have."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import ase.io
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from schnet_ase.data.frames import Frame
from schnet_ase.data.labels.checks import check_frame
from schnet_ase.data.readers.ase_files import invents_energies
from schnet_ase.errors import DataError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.system import geometry
from schnet_ase.learn.charges import nearly_whole
from schnet_ase.learn.labels import lost, restore_constraints
from schnet_ase.learn.reference import Label, labelled_by

log = logging.getLogger("schnet_ase")


def given_label(frame: Atoms) -> Label | None:
    """Return the energy and forces with which a frame was read; None if one is missing."""
    if frame.calc is None:
        return None
    try:
        return labelled_by(frame)
    except (PropertyNotImplementedError, RuntimeError):
        return None


def read_start(path: Path) -> list[Atoms]:
    """Read the first frames.

    Raises
    ------
    DataError
        They cannot be read, or are unsuitable, see `check_start`.
    """
    frames = _read(path)
    check_start(frames, str(path))
    return frames


def check_start(frames: Sequence[Atoms], source: str) -> None:
    """Refuse first frames before anything is labelled or written.

    Raises
    ------
    DataError
        Positions or a label cannot be trusted, see `check_frame`, or a frame holds something that its stored label
        would lose.
    """
    energies = []
    for index, atoms in enumerate(frames):
        where, given = f"{source}: frame {index}", given_label(atoms)
        frame = Frame(geometry(atoms), *(given or (None, None)))
        check_frame(frame, where, energies=given is not None, forces=given is not None)
        energies.append(frame.energy)
        if (what := lost(atoms)) is not None:
            raise DataError(f"{where} has {what}, which labels.extxyz cannot keep; remove it there")
    _doubt_charges(frames, source)
    if energies and not any(energy is None or energy for energy in energies):
        raise DataError(f"{source}: frame 0 and all others have energy zero: labels were not written")


def _doubt_charges(frames: Sequence[Atoms], source: str) -> None:
    """Warn if the sum of initial charges cannot be the total charge, because many references use it as such."""
    for index, atoms in enumerate(frames):
        total = float(atoms.get_initial_charges().sum())
        if not nearly_whole(total):
            log.warning(
                "%s: initial charges of frame %d sum to %.6g, which is no whole number; a reference may take it for "
                "the total charge, remove them unless it is",
                source,
                index,
                total,
            )
            return


def _read(path: Path) -> list[Atoms]:
    try:
        frames = cast("list[Atoms]", ase.io.read(path, ":"))
        unlabelled = invents_energies(path)
        for frame in frames:
            if unlabelled:
                frame.calc = None
            restore_constraints(frame)
        return frames
    except Exception as error:  # ase.io's readers raise errors of every kind
        raise DataError(f"{path}: cannot be read as ASE structures ({type(error).__name__}: {error})") from error


def moved(atoms: Atoms, positions: Floats) -> Atoms:
    """Return `atoms` at other positions and at rest, with their constraints, ``info``, charges and moments."""
    there: Atoms = atoms.copy()
    there.arrays.pop("momenta", None)
    there.positions = positions
    return there
