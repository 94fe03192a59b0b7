"""Train a model from a configuration: read, check and split the data, train, and write an entry if requested."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from schnet_ase.data import CrossValidationSplit
from schnet_ase.evaluation.evaluate import evaluate_dataset
from schnet_ase.evaluation.leakage import check_extra, check_start
from schnet_ase.registry.loading import locate
from schnet_ase.registry.provenance import Provenance
from schnet_ase.training.config import RunConfig
from schnet_ase.training.entry import describe_data, earlier_entry, write_entry
from schnet_ase.training.identity import formulas_to_keep, identity
from schnet_ase.training.processes import ALONE, Processes
from schnet_ase.training.run import load_beside, load_extra, load_frames
from schnet_ase.training.single import prepared
from schnet_ase.training.state import TrainingResult
from schnet_ase.training.subsets import load_test, split_for_training
from schnet_ase.training.task import TrainingTask
from schnet_ase.training.trainer import Report


def train_from_config(
    config: RunConfig,
    folder: Path,
    *,
    models: Path | None = None,
    initial: str | Path | None = None,
    device: str = "cpu",
    processes: Processes = ALONE,
    command: str = "schnet_ase.training.train_from_config",
    report: Report = lambda step, row: None,
) -> TrainingResult:
    """Train one model on the data of a configuration, and test it.

    By default, a tenth of the frames is used for validation.

    Parameters
    ----------
    config, folder, device, processes, report
        See `train`.
    models
        Folder for a registry entry ``<models>/<config.name>/`` with this one member; None: no entry is written.
    initial
        Trained weights to start from: whatever `load_model` takes; an entry stands for its best member. As far as
        possible, `check_start` checks that they have not seen the validation and test frames. None: random weights.
    command
        Command to state on the card of the entry.

    Returns
    -------
    TrainingResult
        The best model, its validation and, with test frames, its test errors.

    Raises
    ------
    DataError, TrainingError
        See `load_frames`, `train`, `check_start` and `earlier_entry`.
    """
    # A student is no start: its members learned from all folds, so no frame would be left for validation.
    weights = None if initial is None else locate(initial, student=False).path
    dataset = processes.agree(lambda: load_frames(config.data.file, config))
    split = split_for_training(config, dataset)
    # Read the test frames first, so that a mistake in them shows now and not after hours of training.
    test = processes.agree(lambda: load_test(config, dataset))
    whole = CrossValidationSplit((split,), np.zeros(0, dtype=np.int64), "random")
    extra = processes.agree(lambda: load_extra(config, 0, dataset))
    processes.agree(lambda: check_extra([extra], dataset, whole, test))
    started_from = None
    if weights is not None:
        started_from = processes.of_first(
            lambda: check_start([weights], dataset, whole, test, partial(load_beside, config))
        )
    task = TrainingTask(config, dataset, split, folder, config.seed, extra, weights, device, processes)
    data = describe_data(config, dataset, test, whole, initial=started_from, formulas=formulas_to_keep(task))
    member = Provenance(identity(task), calibration_frames=())
    entry = None if models is None else models / config.name
    card = None if entry is None else processes.of_first(lambda: earlier_entry(entry, data, [member]))
    with prepared(task) as trainer:
        result = trainer.run(report)
    if entry is not None and processes.rank == 0:
        card = card or write_entry(config, dataset, test, whole, [result], entry, command, data)
        return result._replace(test=card.metrics.test)
    if test is None:
        return result
    return result._replace(test=evaluate_dataset([result.model], test, device=device).member(0).errors())
