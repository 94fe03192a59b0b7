"""Search hyperparameters by training the first fold of the cross-validation with many settings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from schnet_ase.crossval.ray_cluster import check_ray
from schnet_ase.data import Dataset
from schnet_ase.errors import ConfigError, TrainingError
from schnet_ase.evaluation.leakage import check_extra
from schnet_ase.training.config import RunConfig
from schnet_ase.training.run import load_extra, load_frames
from schnet_ase.training.state import only_here
from schnet_ase.training.subsets import load_test, n_test, split_for_crossval
from schnet_ase.training.trainer import SECONDS_BETWEEN_PICTURES
from schnet_ase.tune.ray_trials import search_on_ray
from schnet_ase.tune.trial_task import TrialProgress, TrialTask, train_trial
from schnet_ase.tune.trials import Trial, best_of, write_best, write_trials

if TYPE_CHECKING:  # needs Optuna
    from schnet_ase.tune.study import Draft, Study

STUDY, TABLE, PICTURE, BEST_CONFIG = "study.sqlite", "trials.csv", "trials.png", "best.toml"
TuneExecutor = Literal["sequential", "ray"]


class TuneResult(NamedTuple):
    """Result of a search."""

    best: Trial
    trials: list[Trial]


def tune(
    config: RunConfig,
    folder: Path,
    *,
    device: str = "cpu",
    executor: TuneExecutor = "sequential",
    workers: int | None = None,
    ray_address: str | None = None,
    report: Callable[[TrialProgress], None] = lambda progress: None,
    finished: Callable[[Trial], None] = lambda trial: None,
) -> TuneResult:
    """Search the settings of ``[tune]``; the same call resumes an interrupted search.

    Every trial trains the first fold as `crossval` does; its score is the smallest loss on the validation frames.
    Frames for calibration and tests are not used.

    Parameters
    ----------
    config
        Validated configuration with a table ``[tune]``.
    folder
        Folder of the search: ``trial-<n>/`` holds the training of each trial and ``study.sqlite`` the finished trials.
        ``trials.csv``, ``trials.png`` and ``best.toml``, the configuration with the best settings so far, are updated
        occasionally.
    device
        ``"cpu"`` or ``"cuda"``.
    executor
        ``"sequential"``: one trial after the other, in this process. ``"ray"``: several at the same time, as tasks of a
        Ray cluster, see `search_on_ray`.
    workers
        With Ray, trials at the same time. None: one per core (cpu), one (cuda); on a cluster at `ray_address` as many
        as it has CPUs (or GPUs) for.
    ray_address
        Address of the cluster; None: a cluster on this machine that begins and ends with the search.
    report
        Callback for trials in progress, after every step or, with Ray, after every validation and occasionally.
    finished
        Callback for each finished trial.

    Returns
    -------
    TuneResult
        The best of the complete trials, and all trials.

    Raises
    ------
    ConfigError
        There is no table ``[tune]``.
    TrainingError
        Optuna is not installed, or Ray is not available; the folder holds another search, or another process searches
        in it; or no trial is complete.
    DataError
        The data cannot be trained on.
    """
    if config.tune is None:
        raise ConfigError("no table [tune] in the configuration; add one with trials and the keys to search")
    try:
        from schnet_ase.tune.study import open_study
    except ImportError as error:
        message = "a search needs Optuna, which is not installed; pip install 'schnet_ase[tune]'"
        raise TrainingError(message) from error
    if executor == "ray":
        check_ray()
    elif workers is not None or ray_address is not None:
        raise TrainingError("a number of workers and a Ray address are for executor = 'ray' alone: leave them out")
    with only_here(folder):
        dataset = load_frames(config.data.file, config)
        split = split_for_crossval(config, dataset)
        fold, extra = split.folds[0], load_extra(config, 0, dataset)
        if extra is not None:
            check_extra([extra], dataset, split._replace(folds=(fold,)), load_test(config, dataset))
        with open_study(folder / STUDY, config.tune.search, config.seed, _identity(config, dataset, extra)) as study:
            written = time.monotonic()

            def keep(draft: Draft, trial: Trial) -> None:
                nonlocal written
                study.keep(draft, trial)
                finished(trial)
                if time.monotonic() - written >= SECONDS_BETWEEN_PICTURES:
                    _write(config, study, folder)
                    written = time.monotonic()

            task = TrialTask(config, fold, folder, device)
            if executor == "ray":
                search_on_ray(study, config.tune.trials, task, workers, ray_address, report, keep)
            else:
                _one_by_one(study, config.tune.trials, task, report, keep)
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
    """Return what all trials have in common, by the keys of the file."""
    assert config.tune is not None
    return {
        "data": {
            "sha256": dataset.sha256,
            "units": dataset.units,
            "energy_key": config.data.energy_key,
            "forces_key": config.data.forces_key,
            "stress_key": config.data.stress_key,
            "reference_energies": config.data.reference_energies,
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


def _one_by_one(
    study: Study,
    n_trials: int,
    task: TrialTask,
    report: Callable[[TrialProgress], None],
    keep: Callable[[Draft, Trial], None],
) -> None:
    for draft in study.under_way():  # from an interrupted search on Ray
        keep(draft, train_trial(task, draft, report))
    for _ in range(len(study.trials), n_trials):
        draft = study.draw()
        keep(draft, train_trial(task, draft, report))


def _write(config: RunConfig, study: Study, folder: Path) -> None:
    assert config.tune is not None
    trials = study.trials
    write_trials(trials, folder / TABLE)
    from schnet_ase.tune.pictures import tuning  # matplotlib is loaded where something is drawn

    tuning(trials, config.tune.search, study.importances(), folder / PICTURE)
    if (best := best_of(trials)) is not None:
        write_best(config, best, folder / BEST_CONFIG)
