"""Read, check and split the data of a run."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path

from ase.data import chemical_symbols

from schnet_ase.data import (
    Dataset,
    check_frames,
    read_dataset,
    stored_dataset,
)
from schnet_ase.data.labels.report import labelled_frames, log_dataset
from schnet_ase.data.readers.formats import files_of
from schnet_ase.errors import DataError
from schnet_ase.training.config import RunConfig
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
