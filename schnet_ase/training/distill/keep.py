"""A student into its teacher's entry, or into a copy of it where the entry cannot be written to."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from schnet_ase.errors import RegistryError
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import STUDENT_FILE, Card, Student, read_card, write_card
from schnet_ase.registry.checkpoint import save_model
from schnet_ase.registry.lookup import user_models
from schnet_ase.registry.provenance import Provenance, library_versions
from schnet_ase.training.state import TrainingResult


def destination(card: Card, models: Path | None) -> Path:
    """The folder of the entry that is to keep a student: the teacher's own, or that of its copy in `models`.

    Raises
    ------
    RegistryError
        It cannot be written to, or `models` has another entry of this name.
    """
    if models is None:
        if not os.access(card.path, os.W_OK):
            raise RegistryError(
                f"{card.path} cannot be written to; give --models {user_models()}, or another folder, where a copy of "
                "the entry is to lie with its student"
            )
        return card.path
    folder = models / card.name
    if folder.exists() and read_card(folder).members != card.members:
        raise RegistryError(f"{folder}: an entry of this name with other members is there; give another --models")
    return folder


def keep_student(teacher: Card, folder: Path, result: TrainingResult, student: Student) -> Card:
    """Put a trained student into the entry `folder`, which is made as a copy of the teacher's where it is missing.

    Whenever this is killed the entry is whole, with the old student, none, or the new one.

    Parameters
    ----------
    teacher
        Card of the entry whose members are the teacher.
    folder
        See `destination`.
    result
        Of the training.
    student
        What the card says of it; its `sha256` is filled in.

    Raises
    ------
    OSError
        The disk is full or the folder not writable.
    """
    if not folder.exists():
        _copy(teacher, folder)
    card = read_card(folder)
    provenance = _provenance(teacher, result)
    if card.student is None or Provenance.read(folder / STUDENT_FILE) != provenance:
        if card.student is not None:  # a file that is not the card's would be an error to whoever loads it meanwhile
            write_card(replace(card, student=None), folder)
        save_model(result.model, folder / STUDENT_FILE, **provenance.to_json())
    write_card(replace(card, student=replace(student, sha256=sha256(folder / STUDENT_FILE))), folder)
    return read_card(folder)


def _provenance(teacher: Card, result: TrainingResult) -> Provenance:
    """What the file says of where the student comes from; the teacher's data are behind it as they are behind him."""
    known = Provenance.read(result.path)
    behind = set[str]().union(*(Provenance.read(teacher.path / m.file).all_hashes for m in teacher.members))
    return replace(
        known,
        origin=replace(known.origin, initial_data=tuple(sorted(behind))),
        validation=None,
        versions=library_versions(),
        name=f"{teacher.name}/{Path(STUDENT_FILE).stem}",
        best_step=result.best.step,
        teacher=tuple(member.sha256 for member in teacher.members),
    )


def _copy(teacher: Card, folder: Path) -> None:
    building = folder.with_name(f".{folder.name}.new")
    if building.exists():  # of a process that was killed at this point
        shutil.rmtree(building)
    building.mkdir(parents=True)
    for member in teacher.members:
        shutil.copy(teacher.path / member.file, building)
    write_card(replace(teacher, student=None), building)
    building.rename(folder)
