"""Report to the user how a file was read, and leave out frames on request."""

from __future__ import annotations

import hashlib
import logging

import numpy as np

from schnet_ase.data.frames import Dataset
from schnet_ase.data.labels.checks import Missing, check_frames, lacks_label
from schnet_ase.data.labels.plausibility import suspicions
from schnet_ase.data.stored import StoredFrames
from schnet_ase.errors import DataError

logger = logging.getLogger("schnet_ase")


def log_dataset(dataset: Dataset, missing: Missing | None = None, *, skip: bool = False) -> None:
    """Log which labels were found, under which keys and in which units, what is suspicious, and what frames lack.

    Parameters
    ----------
    dataset
        The data set as read.
    missing
        Result of `check_frames`.
    skip
        Whether frames that lack a label will be left out.
    """
    lines = [dataset.labels, *dataset.notes]
    for line in lines:
        if line:
            logger.info("%s: %s", dataset.source, line)
    for line in suspicions(dataset):
        logger.warning("%s: %s", dataset.source, line)
    if missing is not None and (line := missing.line(dataset.source)):
        logger.info("%s%s", line, "; frames that lack one are left out" if skip else "")


def log_for_evaluation(dataset: Dataset) -> None:
    """Log as `log_dataset` does, for an evaluation, which uses whatever labels a frame has.

    Raises
    ------
    DataError
        As in `check_frames`.
    """
    frames = dataset.frames
    there = {
        "energies": any(frame.energy is not None for frame in frames),
        "forces": any(frame.forces is not None for frame in frames),
        "stress": any(frame.stress is not None for frame in frames),
    }
    log_dataset(dataset, check_frames(frames, dataset.source, keys=dataset.keys, **there))


def labelled_frames(dataset: Dataset, *, energies: bool, forces: bool, stress: bool = False) -> Dataset:
    """Select the frames that have every label that is needed, by the rules of `check_frames`.

    If frames are left out, the indices of the others change: the data then have a hash of their own, and the file's
    hash is among `Dataset.parts`.

    Raises
    ------
    DataError
        No frame has all labels.
    """
    keep = np.array(
        [not lacks_label(frame, energies=energies, forces=forces, stress=stress) for frame in dataset.frames]
    )
    n_left = int(keep.sum())
    if n_left == len(keep):
        return dataset
    if not n_left:
        raise DataError(f"{dataset.source}: none of {len(keep):,} frames has all labels; leave skip_unlabelled out")
    indices = np.flatnonzero(keep)
    frames = dataset.frames
    return dataset._replace(
        frames=frames.subset(indices) if isinstance(frames, StoredFrames) else [frames[int(i)] for i in indices],
        sha256=hashlib.sha256(dataset.sha256.encode() + keep.tobytes()).hexdigest(),
        parts=(*dataset.parts, dataset.sha256),
    )
