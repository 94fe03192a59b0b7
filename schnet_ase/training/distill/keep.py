"""Write a student into its teacher's entry, or into a copy if the entry is not writable."""

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
    """Return the folder of the entry that will keep the student: the teacher's own, or that of its copy in `models`.

    Raises
    ------
    RegistryError
        The teacher's folder is not writable, or `models` has another entry of this name.
    """
    if models is None:
        if not os.access(card.path, os.W_OK):
            raise RegistryError(
                f"{card.path} cannot be written to; give --models {user_models()}, or another folder, for a copy of "
                "the entry with its student"
            )
        return card.path
    folder = models / card.name
    if folder.exists() and read_card(folder).members != card.members:
        raise RegistryError(f"{folder}: an entry of this name exists with other members; give another --models")
    return folder


def keep_student(teacher: Card, folder: Path, result: TrainingResult, student: Student) -> Card:
    """Write a trained student into the entry `folder`, which is first created as a copy of the teacher's if missing.

    The entry is valid at any moment, with the old student, without one, or with the new one, even after a kill.

    Parameters
    ----------
    teacher
        Card of the entry whose members are the teacher.
    folder
        Folder that `destination` returned.
    result
        Result of the training.
    student
        Description of the student for the card; its `sha256` is filled in.

    Returns
    -------
    Card
        The new card.

    Raises
    ------
    OSError
        The disk is full or the folder is not writable.
    """
    if not folder.exists():
        _copy(teacher, folder)
    card = read_card(folder)
    provenance = _provenance(teacher, result)
    if card.student is None or Provenance.read(folder / STUDENT_FILE) != provenance:
        if card.student is not None:  # so that nobody loads a file whose hash differs from the card's meanwhile
            write_card(replace(card, student=None), folder)
        save_model(result.model, folder / STUDENT_FILE, **provenance.to_json())
    write_card(replace(card, student=replace(student, sha256=sha256(folder / STUDENT_FILE))), folder)
    return read_card(folder)


def _provenance(teacher: Card, result: TrainingResult) -> Provenance:
    """Return the provenance of the student, which depends on all data that its teachers depend on."""
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
    if building.exists():  # left by a process that was killed
        shutil.rmtree(building)
    building.mkdir(parents=True)
    for member in teacher.members:
        shutil.copy(teacher.path / member.file, building)
    write_card(replace(teacher, student=None), building)
    building.rename(folder)
