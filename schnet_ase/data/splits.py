"""Which frame serves what: disjoint random subsets, repeatable from a seed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from schnet_ase.errors import DataError
from schnet_ase.neighbors import Integers


class TrainingSplit(NamedTuple):
    """Indices of the frames one model is fitted to and selected on."""

    training: Integers
    validation: Integers


class CrossValidationSplit(NamedTuple):
    """Indices of a k-fold cross-validation: every frame outside `calibration` is validated on exactly once."""

    folds: tuple[TrainingSplit, ...]
    calibration: Integers
    """Frames that no fold trains or validates on."""
    rule: str
    """How frames were assigned, an adjective."""


def split_training(n_frames: int, n_validation: int, seed: int) -> TrainingSplit:
    """A random training and validation set.

    Raises
    ------
    DataError
        Fewer than one frame is left for training or validation.
    """
    if not 1 <= n_validation < n_frames:
        raise DataError(f"validation = {n_validation} of {n_frames} frames; expected between 1 and {n_frames - 1}")
    order = np.random.default_rng(seed).permutation(n_frames)
    return TrainingSplit(np.sort(order[n_validation:]), np.sort(order[:n_validation]))


def split_folds(n_frames: int, n_folds: int, n_calibration: int, seed: int) -> CrossValidationSplit:
    """Random folds and a calibration set that none of them touches.

    Raises
    ------
    DataError
        Not enough frames for a frame in every fold.
    """
    if n_folds < 2:
        raise DataError(f"folds = {n_folds}; expected at least 2")
    if n_calibration < 0 or n_frames - n_calibration < n_folds:
        raise DataError(
            f"{n_frames} frames less {n_calibration} for calibration do not fill {n_folds} folds; "
            "expected at least one frame a fold"
        )
    order = np.random.default_rng(seed).permutation(n_frames)
    parts = np.array_split(order[n_calibration:], n_folds)
    folds = tuple(
        TrainingSplit(np.sort(np.concatenate([*parts[:k], *parts[k + 1 :]])), np.sort(parts[k])) for k in range(n_folds)
    )
    return CrossValidationSplit(folds, np.sort(order[:n_calibration]), "random")
