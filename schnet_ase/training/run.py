"""The data of a run: read, checked, split."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from schnet_ase.data import (
    CrossValidationSplit,
    Dataset,
    TrainingSplit,
    check_frames,
    held_out,
    read_dataset,
    split_folds,
    split_training,
    stored_dataset,
)
from schnet_ase.data.frames import molecules
from schnet_ase.data.labels.report import labelled_frames, log_dataset
from schnet_ase.data.readers.formats import files_of
from schnet_ase.errors import DataError
from schnet_ase.geometry.arrays import Integers
from schnet_ase.training.config import RunConfig
from schnet_ase.training.normalization import is_isolated_atom
from schnet_ase.training.step.weights import check_weights

log = logging.getLogger("schnet_ase")
STREAM_ABOVE = 50e6
"""Bytes of a file whose frames are not held in memory unless the configuration says so."""


def load_frames(file: str, config: RunConfig, *, quiet: bool = False) -> Dataset:
    """Read a file of labelled frames and check the labels that the loss needs.

    Parameters
    ----------
    file
        Its path.
    config
        Says how it is read and what the loss needs.
    quiet
        Whether it is not logged what was found, since another process of the run has done so.

    Raises
    ------
    DataError
        As `read_dataset` and `check_frames`; or a weight is given for frames that are not there.
    """
    data, training = config.data, config.training
    large = sum(part.stat().st_size for part in files_of(file)) > STREAM_ABOVE
    stream = large if data.stream is None else data.stream
    exclude = data.exclude if file == data.file else None
    if stream:
        dataset = stored_dataset(file, config.model.pair_cutoff, data.labels, exclude=exclude)
    else:
        dataset = read_dataset(file, **asdict(data.labels), exclude=exclude)
    needed = {
        "energies": training.energy_weight > 0,
        "forces": training.force_weight > 0,
        "stress": training.stress_weight > 0,
    }
    missing = check_frames(dataset.frames, dataset.source, keys=dataset.keys, **needed)
    if not quiet:
        log_dataset(dataset, missing, skip=data.skip_unlabelled)
    if data.skip_unlabelled:
        dataset = labelled_frames(dataset, **needed)
    if file == data.file:
        check_weights(dataset.frames, dataset.source, training)
    return dataset


def load_extra(config: RunConfig, k: int, dataset: Dataset, *, quiet: bool = False) -> Dataset | None:
    """The frames that the fold with index `k` trains on besides those of `dataset`, that of its configuration's `file`.

    Raises
    ------
    DataError
        As `load_frames`; or they have an element that `dataset` has not.
    """
    if (file := config.data.extra_of(k)) is None:
        return None
    # In the format's own unit and names: labels that others made are not in a file like `file`.
    extra = load_frames(file, replace(config, data=config.data.in_its_formats_way()), quiet=quiet)
    if unknown := sorted(set(extra.elements) - set(dataset.elements)):
        raise DataError(
            f"{extra.source}: has {', '.join(chemical_symbols[z] for z in unknown)}, of which {dataset.source} has no "
            "frame; expected its elements"
        )
    return extra


def load_beside(config: RunConfig, name: str) -> Dataset:
    """Read a file in the folder of the configuration's `file` as that is read; raises as `load_frames`."""
    return load_frames(str(Path(config.data.file).with_name(name)), config)


def load_test(config: RunConfig, dataset: Dataset) -> Dataset | None:
    """The frames for tests of a configuration, from their own file or out of `dataset`, that of its `file`.

    Raises
    ------
    DataError
        As `load_frames` and `held_out`.
    """
    test = config.data.test
    if isinstance(test, int):
        chosen = [frames[held_out(len(frames), test, config.seed)] for frames in _split_together(config, dataset)]
        return dataset._replace(frames=[dataset.frames[i] for i in _joined(chosen)])
    return None if test is None else load_frames(test, config)


def n_test(config: RunConfig) -> int:
    """How many frames of `file`, or of each of its molecules, are for tests."""
    return config.data.test if isinstance(config.data.test, int) else 0


def split_for_crossval(config: RunConfig, dataset: Dataset) -> CrossValidationSplit:
    """Folds, calibration and what is left for tests, of the data of `config.data.file`.

    Raises
    ------
    DataError
        As `split_folds`.
    """
    data, together = config.data, _split_together(config, dataset)
    _say_isolated(dataset, together)
    splits = [
        split_folds(
            len(frames),
            config.folds,
            data.calibration,
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
    together = _split_together(config, dataset)
    _say_isolated(dataset, together)
    splits = [
        split_training(
            len(frames),
            config.data.validation or max(1, len(frames) // 10),
            config.seed,
            n_training=config.data.training,
            n_test=n_test(config),
        )
        for frames in together
    ]
    return _training_split(together, splits)


def _split_together(config: RunConfig, dataset: Dataset) -> list[Integers]:
    """The frames of each molecule, where they are split by themselves; else one list of all.

    Those of isolated atoms are in none: they give the reference energies.
    """
    frames = np.flatnonzero([not is_isolated_atom(frame) for frame in dataset.frames])
    if not len(frames):
        raise DataError(f"{dataset.source}: holds isolated atoms alone; expected frames of several atoms to train on")
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
