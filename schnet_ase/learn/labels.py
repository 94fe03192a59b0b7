"""The labelled frames of a run, and which of them each member may see."""

from __future__ import annotations

import io
from pathlib import Path
from typing import cast

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from ase.io.extxyz import write_extxyz

from schnet_ase.data.splits import CrossValidationSplit, TrainingSplit
from schnet_ase.files import atomic_write
from schnet_ase.learn.config import CALIBRATION_EVERY
from schnet_ase.learn.reference import Label


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
        info = {"label": len(self), "group": group}
        frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=info)
        for name in ("initial_charges", "initial_magmoms"):  # for a run that starts from these labels
            if name in atoms.arrays:
                frame.set_array(name, atoms.arrays[name])
        frame.calc = SinglePointCalculator(frame, energy=label.energy, forces=label.forces)
        text = io.StringIO()
        write_extxyz(text, [frame])
        self._text += text.getvalue().encode()
        atomic_write(self.path, self._text)
        self.frames.append(cast("Atoms", read(io.StringIO(text.getvalue()), format="extxyz")))


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
