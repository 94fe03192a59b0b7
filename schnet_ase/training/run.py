"""Read, check and split the data of a run."""

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
"""Size in bytes above which a file's frames are read from disk when needed, unless the configuration says otherwise."""


def load_frames(file: str, config: RunConfig, *, quiet: bool = False) -> Dataset:
    """Read a file of labelled frames and check the labels that the loss needs.

    Parameters
    ----------
    file
        Path of the file.
    config
        Configuration that says how the file is read and which labels the loss needs.
    quiet
        Whether to log nothing, because another process of the run does.

    Raises
    ------
    DataError
        See `read_dataset` and `check_frames`; or a weight is given for frames that the file does not have.
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
    """Read the additional training frames of the fold with index `k`; None if the configuration names none.

    Raises
    ------
    DataError
        See `load_frames`; or the frames have an element that does not occur in `dataset`, the data of the run.
    """
    if (file := config.data.extra_of(k)) is None:
        return None
    # Read with the format's own unit and names, because labels from elsewhere are not written like those in `file`.
    extra = load_frames(file, replace(config, data=config.data.in_its_formats_way()), quiet=quiet)
    if unknown := sorted(set(extra.elements) - set(dataset.elements)):
        raise DataError(
            f"{extra.source}: contains {', '.join(chemical_symbols[z] for z in unknown)}, but {dataset.source} does "
            "not; expected no other elements"
        )
    return extra


def load_beside(config: RunConfig, name: str) -> Dataset:
    """Read a file in the folder of the configuration's `file` in the same way; see `load_frames` for errors."""
    return load_frames(str(Path(config.data.file).with_name(name)), config)


def load_test(config: RunConfig, dataset: Dataset) -> Dataset | None:
    """Return the test frames of a configuration, from their own file or drawn from `dataset`; None if it has none.

    Raises
    ------
    DataError
        See `load_frames` and `held_out`.
    """
    test = config.data.test
    if isinstance(test, int):
        chosen = [frames[held_out(len(frames), test, config.seed)] for frames in _split_together(config, dataset)]
        return dataset._replace(frames=[dataset.frames[i] for i in _joined(chosen)])
    return None if test is None else load_frames(test, config)


def n_test(config: RunConfig) -> int:
    """Return how many frames of `file`, or of each of its molecules, are kept for tests."""
    return config.data.test if isinstance(config.data.test, int) else 0


def split_for_crossval(config: RunConfig, dataset: Dataset) -> CrossValidationSplit:
    """Split the data of `config.data.file` into folds and calibration frames, leaving out test frames.

    Raises
    ------
    DataError
        See `split_folds`.
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
    """Split the data of `config.data.file` into training and validation frames, leaving out test frames.

    Raises
    ------
    DataError
        See `split_training`.
    """
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
