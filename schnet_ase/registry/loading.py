"""Load a network by its registry name, file or folder."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

from schnet_ase.errors import RegistryError
from schnet_ase.networks import SchNet
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import CARD_FILE, STUDENT_FILE, Card, read_card
from schnet_ase.registry.checkpoint import load_checkpoint
from schnet_ase.registry.lookup import (
    BEST,
    STATE,
    entry_folders,
    folder_of,
    get_card,
    is_file,
    named_member,
    unknown_model,
)
from schnet_ase.registry.provenance import Provenance
from schnet_ase.registry.references import ENVIRONMENTS_FILE


class Loaded(NamedTuple):
    """A model and its file."""

    model: SchNet
    path: Path


class Found(NamedTuple):
    """A file that a name stands for, and the hash of its content."""

    path: Path
    sha256: str
    """Empty if the file does not exist, which `load_checkpoint` then says."""


def load_model(name: str | os.PathLike[str]) -> SchNet:
    """Load one model, by registry name or file.

    Parameters
    ----------
    name
        ``"rmd17-ethanol"`` (its student where it has one, else its best member by validation error),
        ``"rmd17-ethanol/student"``, ``"rmd17-ethanol/fold-2"``, the path of an entry's folder (as its name), of a
        ``.safetensors`` file, or of the folder of a run: of ``train``, of ``crossval`` (its best fold) or of ``learn``
        (its last ensemble's best member). A registry name comes before a folder of that name.

    Raises
    ------
    RegistryError
        There is no such entry or member, or a file is not the one of the card.
    CheckpointError
        The file cannot be read.
    """
    return locate(name).model


def locate(name: str | os.PathLike[str], *, student: bool = True) -> Loaded:
    """Load one model as `load_model` does, and return it with its file; without `student`, an entry's best member."""
    path = find(name, student=student).path
    return Loaded(load_checkpoint(path), path)


def locate_members(name: str | os.PathLike[str]) -> list[Loaded]:
    """Load all members of an entry or of a folder of checkpoints; a file or ``"entry/fold-k"`` gives one.

    An entry's student is never among them.

    Raises
    ------
    RegistryError
        There is no such entry, or the folder has no members.
    CheckpointError
        A file cannot be read.
    """
    return [Loaded(load_checkpoint(found.path), found.path) for found in find_members(name)]


def find(name: str | os.PathLike[str], *, student: bool = True) -> Found:
    """Return the file that `locate` loads."""
    if named := named_member(name):
        return _file_of(*named)
    folder = folder_of(name)
    if folder is not None and (folder / CARD_FILE).is_file():
        card = read_card(folder)
        return _file_of(card, STUDENT_FILE if student and card.student is not None else card.best.file)
    if folder is not None:
        return _found(min(_trained(folder), key=_validation_error))
    if is_file(name):
        return _found(Path(name))
    entry, _, member = str(name).partition("/")
    if not member or "/" in member or entry not in entry_folders():
        raise unknown_model(str(name))
    return _file_of(get_card(entry), f"{member}.safetensors")


def find_members(name: str | os.PathLike[str]) -> list[Found]:
    """Return the files that `locate_members` loads."""
    folder = folder_of(name)
    if folder is None or named_member(name):
        return [find(name)]
    if (folder / CARD_FILE).is_file():
        card = read_card(folder)
        return [_file_of(card, m.file) for m in card.members]
    # The folder of a run holds, beside its model, the state from which its training resumes.
    others = (STATE, STUDENT_FILE, ENVIRONMENTS_FILE)
    models = sorted(file for file in folder.glob("*.safetensors") if file.name not in others)
    return [_found(file) for file in models or _trained(folder)]


def _trained(folder: Path) -> list[Path]:
    """Return the model in the folder of a training, or those of the folds of a cross-validation."""
    files = [folder / BEST] if (folder / BEST).is_file() else sorted(folder.glob(f"*/{BEST}"))
    if files:
        return files
    if any(folder.glob(f"**/{STATE}")):
        raise RegistryError(
            f"{folder}: no model yet, its training was stopped before the first validation; the same command resumes it"
        )
    if any(folder.glob("*.safetensors")):
        raise RegistryError(f"{folder}: a folder, but no registry entry (no {CARD_FILE}); name a file in it")
    raise RegistryError(f"{folder}: no .safetensors files; expected a folder of checkpoints")


def _found(path: Path) -> Found:
    return Found(path, sha256(path) if path.is_file() else "")


def _file_of(card: Card, file: str) -> Found:
    if file not in card.networks:
        names = ", ".join(f"{card.name}/{Path(network).stem}" for network in card.networks)
        missing = "; schnet-ase distill makes a student" if file == STUDENT_FILE else ""
        raise RegistryError(f"no model {card.name}/{Path(file).stem}; expected one of {names}{missing}")
    found = _found(card.path / file)
    if found.sha256 and found.sha256 != card.networks[file]:
        raise RegistryError(f"{found.path}: SHA-256 is not the one in {card.path / CARD_FILE}; get the entry again")
    return found


def _validation_error(path: Path) -> tuple[float, float]:
    """Return the validation errors of forces and energies, by which the best member is chosen, as in `Card.best`."""
    validation = Provenance.read(path).validation
    errors = (None, None) if validation is None else (validation.errors.force_mae, validation.errors.energy_mae)
    force, energy = (math.inf if error is None else error for error in errors)
    return force, energy
