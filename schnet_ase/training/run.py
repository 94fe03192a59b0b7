"""A training from its configuration: data in, checked, split, trained."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from schnet_ase.data import Dataset, read_dataset, split_training, stored_dataset
from schnet_ase.data.frames import check_frames
from schnet_ase.training.config import RunConfig
from schnet_ase.training.processes import ALONE, Processes
from schnet_ase.training.state import TrainingResult
from schnet_ase.training.trainer import Report, train

STREAM_ABOVE = 50e6
"""Bytes of a file whose frames are not held in memory unless the configuration says so."""


def load_frames(file: str, config: RunConfig) -> Dataset:
    """Read a file of labelled frames and check the labels that the loss needs.

    Raises
    ------
    DataError
        As `read_dataset` and `check_frames`.
    """
    data = config.data
    large = Path(file).is_file() and Path(file).stat().st_size > STREAM_ABOVE
    stream = large if data.stream is None else data.stream
    read = partial(stored_dataset, cutoff=config.model.pair_cutoff) if stream else read_dataset
    dataset = read(file, energy_unit=data.energy_unit, energy_key=data.energy_key, forces_key=data.forces_key)
    training = config.training
    check_frames(dataset.frames, dataset.source, energies=training.energy_weight > 0, forces=training.force_weight > 0)
    return dataset


def train_from_config(
    config: RunConfig,
    folder: Path,
    *,
    device: str = "cpu",
    processes: Processes = ALONE,
    report: Report = lambda step, row: None,
) -> TrainingResult:
    """Train one model on the data of a configuration, a tenth of which validates unless it says otherwise.

    The other parameters are those of `train`.

    Raises
    ------
    DataError, TrainingError
        As `load_frames` and `train`.
    """
    dataset = processes.agree(lambda: load_frames(config.data.file, config))
    n_frames = len(dataset.frames)
    split = split_training(n_frames, config.data.validation or max(1, n_frames // 10), config.seed)
    return train(config, dataset, split, folder, device=device, processes=processes, report=report)
