"""The labelled frames of a run, and which of them each member may see."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import dict2constraint
from ase.io import read
from ase.io.extxyz import write_extxyz

from schnet_ase.data.splits import CrossValidationSplit, TrainingSplit
from schnet_ase.learn.config import CALIBRATION_EVERY
from schnet_ase.learn.reference import Label
from schnet_ase.output.files import atomic_write

CONSTRAINTS = "ase_constraints"
"""Key of a stored frame's constraints in its ``info``. ASE's own way of writing them loses most kinds, and with the
others readers would see no forces on held atoms."""
OWN = ("label", "group", CONSTRAINTS)
OF_ONE_GEOMETRY = ("energy", "force", "stress", "virial")


class LabelStore:
    """The file ``labels.extxyz``, which grows by one frame at a time, whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._text = path.read_bytes() if path.exists() else b""
        self.frames = cast("list[Atoms]", read(path, ":", format="extxyz")) if self._text else []

    def __len__(self) -> int:
        return len(self.frames)

    def append(self, atoms: Atoms, label: Label, group: str) -> None:
        """Add a frame, with its number and group; it is on disk when this returns."""
        info = {**_kept(atoms), "label": len(self), "group": group}
        frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=info)
        for name in ("initial_charges", "initial_magmoms", "masses"):  # a new run may start from these labels
            if name in atoms.arrays:
                frame.set_array(name, atoms.arrays[name])
        frame.calc = SinglePointCalculator(frame, energy=label.energy, forces=label.forces)
        text = _text(frame)
        self._text += text.encode()
        atomic_write(self.path, self._text)
        self.frames.append(cast("Atoms", read(io.StringIO(text), format="extxyz")))


def _kept(atoms: Atoms) -> dict[str, Any]:
    """Return the ``info`` of a stored frame: its own without results, and its constraints."""
    info = {name: value for name, value in atoms.info.items() if not (name in OWN or _is_result(name))}
    if atoms.constraints:
        info[CONSTRAINTS] = [constraint.todict() for constraint in atoms.constraints]
    return info


def _is_result(name: str) -> bool:
    return name in all_properties or any(word in name.lower() for word in OF_ONE_GEOMETRY)


def lost(atoms: Atoms) -> str | None:
    """State which part of a frame's ``info`` and constraints the store would lose; None if none."""
    try:
        kept = _kept(atoms)
    except Exception:  # a user's constraints may have no todict, or one that fails
        return "a constraint"
    for name, value in kept.items():
        if not _comes_back(name, value):
            return "a constraint" if name == CONSTRAINTS else f"info[{name!r}]"
    return None


def _comes_back(name: str, value: Any) -> bool:
    """Return whether extxyz reads a value as it was; it writes numbers, words, arrays and JSON."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # it warns if it leaves something out
            text = _text(Atoms("X", info={name: value}))
            again = cast("Atoms", read(io.StringIO(text), format="extxyz"))
            restore_constraints(again.copy())
            return list(again.info) == [name] and (_text(again) == text or np.array_equal(again.info[name], value))
    except Exception:  # its parser raises errors of every kind
        return False


def _text(atoms: Atoms) -> str:
    text = io.StringIO()
    write_extxyz(text, [atoms])
    return text.getvalue()


def restore_constraints(atoms: Atoms) -> None:
    """Restore the constraints of a stored frame from its ``info``."""
    if CONSTRAINTS in atoms.info:
        atoms.set_constraint([dict2constraint(table) for table in atoms.info.pop(CONSTRAINTS)])


def group(number: int, folds: int, seed: int) -> int | None:
    """Return the fold whose member validates on a label and never trains on it; None: the label is for calibration.

    It follows only from the label's number, so that a member never trains on a frame that it once validated on. One of
    every five labels, drawn at random, calibrates; the others go to the folds in turn.
    """
    block, position = divmod(number, CALIBRATION_EVERY)
    drawn = int(np.random.default_rng([seed, block]).integers(CALIBRATION_EVERY))
    if position == drawn:
        return None
    return (number - block - (position > drawn)) % folds


def group_name(number: int, folds: int, seed: int) -> str:
    """Return `group` in words, with folds counted from 1."""
    fold = group(number, folds, seed)
    return "calibration" if fold is None else f"fold-{fold + 1}"


def split_labels(n_labels: int, folds: int, seed: int) -> CrossValidationSplit:
    """Split the first `n_labels` by `group`."""
    groups = [group(number, folds, seed) for number in range(n_labels)]
    numbers = np.arange(n_labels)
    fold_of = np.array([-1 if g is None else g for g in groups])
    return CrossValidationSplit(
        tuple(TrainingSplit(numbers[(fold_of != k) & (fold_of >= 0)], numbers[fold_of == k]) for k in range(folds)),
        numbers[fold_of < 0],
        "round-robin",
    )
