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
"""Key of a stored frame's constraints in its ``info``. As ASE would write them, most kinds would be lost, and readers
would see no forces on the atoms that the others hold."""
OWN = ("label", "group", CONSTRAINTS)
OF_ONE_GEOMETRY = ("energy", "force", "stress", "virial")


class LabelStore:
    """``labels.extxyz``, which grows by one frame at a time, whole or not at all."""

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
        for name in ("initial_charges", "initial_magmoms", "masses"):  # for a run that starts from these labels
            if name in atoms.arrays:
                frame.set_array(name, atoms.arrays[name])
        frame.calc = SinglePointCalculator(frame, energy=label.energy, forces=label.forces)
        text = _text(frame)
        self._text += text.encode()
        atomic_write(self.path, self._text)
        self.frames.append(cast("Atoms", read(io.StringIO(text), format="extxyz")))


def _kept(atoms: Atoms) -> dict[str, Any]:
    """What goes into a stored frame's ``info``: its own, but no results, and its constraints."""
    info = {name: value for name, value in atoms.info.items() if not (name in OWN or _is_result(name))}
    if atoms.constraints:
        info[CONSTRAINTS] = [constraint.todict() for constraint in atoms.constraints]
    return info


def _is_result(name: str) -> bool:
    return name in all_properties or any(word in name.lower() for word in OF_ONE_GEOMETRY)


def lost(atoms: Atoms) -> str | None:
    """What of a frame's ``info`` and constraints would not come back from the store, in words."""
    try:
        kept = _kept(atoms)
    except Exception:  # constraints of one's own have no todict, or one that is not to be called
        return "a constraint"
    for name, value in kept.items():
        if not _comes_back(name, value):
            return "a constraint" if name == CONSTRAINTS else f"info[{name!r}]"
    return None


def _comes_back(name: str, value: Any) -> bool:
    """Whether extxyz reads what it wrote; it writes numbers, words, arrays and JSON."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # by which it says that it left something out
            text = _text(Atoms("X", info={name: value}))
            again = cast("Atoms", read(io.StringIO(text), format="extxyz"))
            restore_constraints(again.copy())
            return list(again.info) == [name] and (_text(again) == text or np.array_equal(again.info[name], value))
    except Exception:  # whatever its parser met
        return False


def _text(atoms: Atoms) -> str:
    text = io.StringIO()
    write_extxyz(text, [atoms])
    return text.getvalue()


def restore_constraints(atoms: Atoms) -> None:
    """Take the constraints of a stored frame out of its ``info`` again."""
    if CONSTRAINTS in atoms.info:
        atoms.set_constraint([dict2constraint(table) for table in atoms.info.pop(CONSTRAINTS)])


def group(number: int, folds: int, seed: int) -> int | None:
    """The fold that validates on a label, which its member never trains on; None: it is for calibration.

    It follows from the label's number alone, so a frame once kept from a member stays so while the data grows. One of
    every five labels, drawn, calibrates; the others go to the folds in turn.
    """
    block, position = divmod(number, CALIBRATION_EVERY)
    drawn = int(np.random.default_rng([seed, block]).integers(CALIBRATION_EVERY))
    if position == drawn:
        return None
    return (number - block - (position > drawn)) % folds


def group_name(number: int, folds: int, seed: int) -> str:
    """`group` in words, folds counted from 1."""
    fold = group(number, folds, seed)
    return "calibration" if fold is None else f"fold-{fold + 1}"


def split_labels(n_labels: int, folds: int, seed: int) -> CrossValidationSplit:
    """The split of the first `n_labels` by `group`."""
    groups = [group(number, folds, seed) for number in range(n_labels)]
    numbers = np.arange(n_labels)
    fold_of = np.array([-1 if g is None else g for g in groups])
    return CrossValidationSplit(
        tuple(TrainingSplit(numbers[(fold_of != k) & (fold_of >= 0)], numbers[fold_of == k]) for k in range(folds)),
        numbers[fold_of < 0],
        "round-robin",
    )
