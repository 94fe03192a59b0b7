"""A search over hyperparameters: the first fold of the cross-validation, trained with one setting after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from schnet_ase import plots
from schnet_ase.data import Dataset, TrainingSplit
from schnet_ase.errors import ConfigError, DivergenceError, TrainingError
from schnet_ase.training.config import RunConfig
from schnet_ase.training.folds import FoldTask, train_fold
from schnet_ase.training.history import Row
from schnet_ase.training.run import check_extra, load_extra, load_frames, load_test, n_test, split_for_crossval
from schnet_ase.training.state import STATE, only_here, read_history
from schnet_ase.training.trainer import SECONDS_BETWEEN_PICTURES
from schnet_ase.training.trials import State, Trial, best_of, write_best, write_trials

if TYPE_CHECKING:  # needs Optuna
    from schnet_ase.training.study import Draft, Study

STUDY, TABLE, PICTURE, BEST_CONFIG = "study.sqlite", "trials.csv", "trials.png", "best.toml"


class TuneResult(NamedTuple):
    """A search that is over."""

    best: Trial
    trials: list[Trial]


class TrialProgress(NamedTuple):
    """A trial's state, as it is reported."""

    trial: int
    step: int
    steps: int
    row: Row | None
    """The newest validation, once after it was made."""


class _Pruned(Exception):
    """The trial is not worth going on with."""


def tune(
    config: RunConfig,
    folder: Path,
    *,
    device: str = "cpu",
    report: Callable[[TrialProgress], None] = lambda progress: None,
    finished: Callable[[Trial], None] = lambda trial: None,
) -> TuneResult:
    """Search the settings of ``[tune]``; the same call goes on with a search that was interrupted.

    Every trial trains the first fold as `crossval` does and is judged by the smallest loss on its validation frames.
    Frames for calibration and tests are not touched.

    Parameters
    ----------
    config
        Validated configuration with a table ``[tune]``.
    folder
        Of the search: ``trial-<n>/`` with the training of each trial, ``study.sqlite`` with the finished ones, and, new
        now and then, ``trials.csv``, ``trials.png`` and ``best.toml``, the configuration with the best settings so far.
    device
        ``"cpu"`` or ``"cuda"``.
    report
        Told about the trial under way after every step.
    finished
        Told about each trial at its end.

    Returns
    -------
    TuneResult
        The best of the trials that were trained to their end, and all.

    Raises
    ------
    ConfigError
        There is no table ``[tune]``.
    TrainingError
        Optuna is not installed; the folder holds another search, or another process searches in it; or no trial could
        be trained to its end.
    DataError
        The data cannot be trained on.
    """
    if config.tune is None:
        raise ConfigError("no table [tune] in the configuration; add one with trials and the keys to search")
    try:
        from schnet_ase.training.study import open_study
    except ImportError as error:
        message = "a search needs Optuna, which is not installed; pip install 'schnet_ase[tune]'"
        raise TrainingError(message) from error
    with only_here(folder):
        dataset = load_frames(config.data.file, config)
        split = split_for_crossval(config, dataset)
        fold, extra = split.folds[0], load_extra(config, 0, dataset)
        if extra is not None:
            check_extra(config, dataset, split._replace(folds=(fold,)), load_test(config, dataset))
        with open_study(folder / STUDY, config.tune.search, config.seed, _identity(config, dataset, extra)) as study:
            written = time.monotonic()
            for _ in range(len(study.trials), config.tune.trials):
                draft = study.draw()
                trial = _run(draft, config, fold, folder, device, report)
                study.keep(draft, trial)
                finished(trial)
                if time.monotonic() - written >= SECONDS_BETWEEN_PICTURES:
                    _write(config, study, folder)
                    written = time.monotonic()
            trials = study.trials
            _write(config, study, folder)
    best = best_of(trials)
    if best is None:
        raise TrainingError(
            f"{folder}: none of {len(trials)} trials was trained to its end; the last one {trials[-1].state} "
            f"({trials[-1].reason}); change the ranges of [tune] and choose another folder"
        )
    return TuneResult(best, trials)


def _identity(config: RunConfig, dataset: Dataset, extra: Dataset | None) -> dict[str, Any]:
    """What all trials have in common, by the keys of the file."""
    assert config.tune is not None
    return {
        "data": {
            "sha256": dataset.sha256,
            "units": dataset.units,
            "energy_key": config.data.energy_key,
            "forces_key": config.data.forces_key,
            "training": config.data.training,
            "calibration": config.data.calibration,
            "test": n_test(config),
            "by_molecule": config.data.by_molecule,
            "extra_sha256": None if extra is None else extra.sha256,
        },
        "model": config.model.to_dict(),
        "training": config.training.to_dict(),
        "folds": config.folds,
        "seed": config.seed,
        "tune": {key: asdict(values) for key, values in config.tune.search.items()},
    }


def _run(
    draft: Draft,
    config: RunConfig,
    fold: TrainingSplit,
    folder: Path,
    device: str,
    report: Callable[[TrialProgress], None],
) -> Trial:
    rows: list[Row] = []
    try:
        settings = config.with_values(draft.values)
    except ConfigError as error:
        return Trial(draft.number, draft.values, "failed", None, None, draft.folder, str(error))
    training = settings.training
    task = FoldTask(settings, 0, fold, folder / draft.folder, None, device)

    def take(row: Row) -> None:
        rows.append(row)
        draft.report(row)

    def judge(step: int, row: Row | None) -> None:
        report(TrialProgress(draft.number, step, training.steps, row))
        if row is not None:
            take(row)
            # Not before the learning rate is up, and not where there is nothing left to save.
            if training.warmup_steps < step < training.steps and draft.should_prune():
                raise _Pruned

    def outcome(state: State, reason: str = "") -> Trial:
        best = min(rows, key=lambda r: r.validation_loss, default=None)
        return Trial(draft.number, draft.values, state, rows[-1] if rows else None, best, draft.folder, reason)

    if (task.folder / STATE).exists():
        for row in read_history(task.folder)[:-1]:  # the last one is reported when the training goes on
            take(row)
    try:
        train_fold(task, judge)
    except _Pruned:
        return outcome("pruned")
    except DivergenceError as error:
        return outcome("failed", str(error))
    return outcome("complete")


def _write(config: RunConfig, study: Study, folder: Path) -> None:
    assert config.tune is not None
    trials = study.trials
    write_trials(trials, folder / TABLE)
    plots.tuning(trials, config.tune.search, study.importances(), folder / PICTURE)
    if (best := best_of(trials)) is not None:
        write_best(config, best, folder / BEST_CONFIG)
