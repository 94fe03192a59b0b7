"""Disjoint random subsets of frames for training, validation, calibration and tests, reproducible from a seed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from schnet_ase.errors import DataError
from schnet_ase.geometry.arrays import Integers


class TrainingSplit(NamedTuple):
    """Indices of the frames that one model is trained and validated on."""

    training: Integers
    validation: Integers


class CrossValidationSplit(NamedTuple):
    """Indices of a k-fold cross-validation: exactly one fold validates on each frame outside `calibration`."""

    folds: tuple[TrainingSplit, ...]
    calibration: Integers
    """Frames that no fold trains or validates on."""
    rule: str
    """Rule by which frames were assigned to folds: an adjective, such as ``"random"``."""


def held_out(n_frames: int, n_test: int, seed: int) -> Integers:
    """Draw random test frames, which no other split with the same three numbers contains.

    Raises
    ------
    DataError
        There are not enough frames.
    """
    if not 0 <= n_test < n_frames:
        raise DataError(f"test = {n_test} of {n_frames} frames; expected fewer than there are")
    return np.sort(np.random.default_rng(seed).permutation(n_frames)[n_frames - n_test :])


def split_training(
    n_frames: int, n_validation: int, seed: int, *, n_training: int | None = None, n_test: int = 0
) -> TrainingSplit:
    """Draw a random training set and a random validation set.

    Parameters
    ----------
    n_frames, n_validation, seed
        Number of frames, number of validation frames, and the seed.
    n_training
        Number of training frames; None: all others.
    n_test
        How many to leave to `held_out`.

    Raises
    ------
    DataError
        Fewer than one frame is left for training or validation, or fewer than `n_training`.
    """
    most = n_frames - n_test - (n_training or 1)
    if not 1 <= n_validation <= most:
        training = "" if n_training is None else f"training = {n_training}, "
        raise DataError(f"{training}validation = {n_validation} of {_available(n_frames, n_test)}; {_between(most)}")
    order = _order(n_frames, n_test, seed)
    return TrainingSplit(np.sort(order[n_validation:][:n_training]), np.sort(order[:n_validation]))


def split_folds(
    n_frames: int, n_folds: int, n_calibration: int, seed: int, *, n_training: int | None = None, n_test: int = 0
) -> CrossValidationSplit:
    """Draw random folds, and a calibration set that no fold uses.

    Parameters
    ----------
    n_frames, n_folds, n_calibration, seed
        Number of frames, number of folds, number of calibration frames, and the seed.
    n_training
        Number of frames that the folds share; None: all others.
    n_test
        How many to leave to `held_out`.

    Raises
    ------
    DataError
        There are too few frames for one in every fold, or fewer than `n_training`.
    """
    if n_folds < 2:
        raise DataError(f"folds = {n_folds}; expected at least 2")
    left = n_frames - n_test - n_calibration
    if n_calibration < 0 or min(left, n_training or left) < n_folds:
        raise DataError(
            f"{_available(n_frames, n_test)} less {n_calibration} for calibration do not fill {n_folds} folds; "
            "expected at least one frame a fold"
        )
    if n_training is not None and n_training > left:
        raise DataError(
            f"training = {n_training} of {_available(n_frames, n_test)} less {n_calibration} for calibration; "
            f"expected at most {left}"
        )
    order = _order(n_frames, n_test, seed)
    parts = np.array_split(order[n_calibration:][:n_training], n_folds)
    folds = tuple(
        TrainingSplit(np.sort(np.concatenate([*parts[:k], *parts[k + 1 :]])), np.sort(parts[k])) for k in range(n_folds)
    )
    return CrossValidationSplit(folds, np.sort(order[:n_calibration]), "random")


def _order(n_frames: int, n_test: int, seed: int) -> Integers:
    """Return all frames except those of `held_out`, in random order."""
    return np.random.default_rng(seed).permutation(n_frames)[: n_frames - n_test]


def _available(n_frames: int, n_test: int) -> str:
    return f"{n_frames} frames less {n_test} for tests" if n_test else f"{n_frames} frames"


def _between(most: int) -> str:
    return f"expected between 1 and {most}" if most > 0 else "expected more frames"
