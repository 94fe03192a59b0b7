"""Decide which frames of a run's data train, validate, calibrate and test."""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np

from schnet_ase.data import (
    CrossValidationSplit,
    Dataset,
    TrainingSplit,
    held_out,
    split_folds,
    split_training,
)
from schnet_ase.data.frames import molecules
from schnet_ase.errors import DataError
from schnet_ase.geometry.arrays import Integers
from schnet_ase.training.config import RunConfig
from schnet_ase.training.config.tables import CALIBRATION_FRAMES
from schnet_ase.training.normalization import is_isolated_atom
from schnet_ase.training.run import load_frames

log = logging.getLogger("schnet_ase")
TEST, CALIBRATION = "test", "calibration"
"""Subsets that a file may state beside the folds."""


def load_test(config: RunConfig, dataset: Dataset) -> Dataset | None:
    """Return the test frames of a configuration, from their own file or from `dataset`; None if it has none.

    Raises
    ------
    DataError
        See `load_frames`, `held_out` and `stated_subsets`.
    """
    test = config.data.test
    if isinstance(test, str):
        return load_frames(test, config)
    if config.data.stated_split:
        chosen = _drawn(stated_subsets(dataset).test, test, "test", config.seed)
    elif test is not None:
        chosen = _joined([some[held_out(len(some), test, config.seed)] for some in _split_together(config, dataset)])
    else:
        return None
    return dataset._replace(frames=[dataset.frames[i] for i in chosen]) if len(chosen) else None


def n_test(config: RunConfig) -> int:
    """Return how many frames of `file`, or of each of its molecules, are kept for tests."""
    return config.data.test if isinstance(config.data.test, int) else 0


def split_for_crossval(config: RunConfig, dataset: Dataset) -> CrossValidationSplit:
    """Split the data of `config.data.file` into folds and calibration frames, leaving out test frames.

    Raises
    ------
    DataError
        See `split_folds` and `stated_subsets`; or the file states another number of folds.
    """
    data, together = config.data, _split_together(config, dataset)
    _say_isolated(dataset, together)
    if data.stated_split:
        return _stated_folds(config, dataset)
    splits = [
        split_folds(
            len(frames),
            config.folds,
            CALIBRATION_FRAMES if data.calibration is None else data.calibration,
            config.seed,
            n_training=data.training,
            n_test=n_test(config),
        )
        for frames in together
    ]
    return CrossValidationSplit(
        tuple(_training_split(together, [split.folds[k] for split in splits]) for k in range(config.folds)),
        _joined([frames[split.calibration] for frames, split in zip(together, splits, strict=True)]),
        "random, molecule by molecule," if data.by_molecule else splits[0].rule,
    )


def split_for_training(config: RunConfig, dataset: Dataset) -> TrainingSplit:
    """Split the data of `config.data.file` into training and validation frames, leaving out test frames.

    Raises
    ------
    DataError
        See `split_training` and `stated_subsets`.
    """
    data, together = config.data, _split_together(config, dataset)
    _say_isolated(dataset, together)
    if data.stated_split:
        return _stated_fold(config, stated_subsets(dataset).folds, 0)
    splits = [
        split_training(
            len(frames),
            data.validation or max(1, len(frames) // 10),
            config.seed,
            n_training=data.training,
            n_test=n_test(config),
        )
        for frames in together
    ]
    return _training_split(together, splits)


class StatedSubsets(NamedTuple):
    """Indices of the frames of each subset that a file states."""

    folds: tuple[Integers, ...]
    """In the order of their names."""
    calibration: Integers
    test: Integers


def stated_subsets(dataset: Dataset) -> StatedSubsets:
    """Return the subsets that a file states, without frames of isolated atoms.

    Raises
    ------
    DataError
        A frame states none, or there are fewer than two folds.
    """
    found: dict[str, list[int]] = {}
    for index, frame in enumerate(dataset.frames):
        if is_isolated_atom(frame):
            continue
        if not frame.split:
            raise DataError(
                f"{dataset.source}: frame {index} has no split; expected test, calibration or the name of a fold, or "
                "no data.stated_split"
            )
        found.setdefault(frame.split, []).append(index)
    calibration, test = (np.array(found.pop(name, []), dtype=np.int64) for name in (CALIBRATION, TEST))
    if len(found) < 2:
        raise DataError(
            f"{dataset.source}: its frames state {' and '.join(found) or 'no fold'} beside test and calibration; "
            "expected the names of at least two folds"
        )
    return StatedSubsets(tuple(np.array(found[name]) for name in sorted(found)), calibration, test)


def _stated_folds(config: RunConfig, dataset: Dataset) -> CrossValidationSplit:
    stated = stated_subsets(dataset)
    if len(stated.folds) != config.folds:
        raise DataError(
            f"{dataset.source}: its frames state {len(stated.folds)} folds beside test and calibration; expected "
            f"folds = {config.folds}: correct one of the two"
        )
    return CrossValidationSplit(
        tuple(_stated_fold(config, stated.folds, k) for k in range(config.folds)),
        _drawn(stated.calibration, config.data.calibration, "calibration", config.seed),
        "stated",
    )


def _stated_fold(config: RunConfig, folds: tuple[Integers, ...], k: int) -> TrainingSplit:
    """Return the split that validates on a fold and trains on all others."""
    others = np.sort(np.concatenate([*folds[:k], *folds[k + 1 :]]))
    return TrainingSplit(
        _drawn(others, config.data.training, "training", config.seed),
        _drawn(folds[k], config.data.validation, "validation", config.seed),
    )


def _drawn(frames: Integers, wanted: int | None, name: str, seed: int) -> Integers:
    """Return random ones of some frames, or all."""
    if wanted is None:
        return frames
    if wanted > len(frames):
        raise DataError(f"data.{name} = {wanted}, but the file states {len(frames)} such frames; give at most as many")
    return np.sort(np.random.default_rng(seed).permutation(frames)[:wanted])


def _split_together(config: RunConfig, dataset: Dataset) -> list[Integers]:
    """Return the indices of each molecule's frames if molecules are split separately; else one list of all indices.

    Frames of isolated atoms are left out, since they only give reference energies.
    """
    frames = np.flatnonzero([not is_isolated_atom(frame) for frame in dataset.frames])
    if not len(frames):
        raise DataError(f"{dataset.source}: contains only isolated atoms; expected frames of several atoms to train on")
    if not config.data.by_molecule:
        return [frames]
    molecule = molecules(dataset.frames[i].geometry.numbers for i in frames.tolist())
    order = np.argsort(molecule, kind="stable")
    return np.split(frames[order], np.cumsum(np.bincount(molecule))[:-1])


def _say_isolated(dataset: Dataset, together: list[Integers]) -> None:
    if n := len(dataset.frames) - sum(len(frames) for frames in together):
        log.info("%s: %d frames of isolated atoms give reference energies and are not trained on", dataset.source, n)


def _training_split(together: list[Integers], splits: list[TrainingSplit]) -> TrainingSplit:
    pairs = list(zip(together, splits, strict=True))
    return TrainingSplit(
        _joined([frames[split.training] for frames, split in pairs]),
        _joined([frames[split.validation] for frames, split in pairs]),
    )


def _joined(parts: list[Integers]) -> Integers:
    return np.sort(np.concatenate(parts))
