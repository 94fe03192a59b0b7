"""Run trials of a search as tasks of a Ray cluster, several at the same time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from schnet_ase.crossval.folds import now_and_then
from schnet_ase.crossval.ray_cluster import RayTasks, from_shared, ray_tasks
from schnet_ase.output.machine import available_cores
from schnet_ase.training.config import absolute
from schnet_ase.training.entry import fold_name
from schnet_ase.training.state import read_history
from schnet_ase.tune.trial_task import TrialProgress, TrialTask, train_trial
from schnet_ase.tune.trials import Trial

if TYPE_CHECKING:  # needs Optuna
    from schnet_ase.tune.study import Draft, Study


def search_on_ray(
    study: Study,
    n_trials: int,
    task: TrialTask,
    workers: int | None,
    address: str | None,
    report: Callable[[TrialProgress], None],
    keep: Callable[[Draft, Trial], None],
) -> None:
    """Train trials as tasks until `study` has `n_trials`: first those in progress, then new ones as workers become
    free.

    If a machine is lost, Ray starts its task again, and the task resumes from the trial's checkpoint.

    Parameters
    ----------
    study
        Study with the trials so far.
    n_trials
        Total number of trials.
    task
        Common part of the trials. All machines must find its data and folder.
    workers
        Trials at the same time; None: one per core of this machine (cpu), one (cuda), or as many as the cluster at
        `address` has CPUs (or GPUs) for.
    address
        See `ray_tasks`.
    report
        Callback for the progress of the trials.
    keep
        Callback for each finished trial, which must keep it in `study`.

    Raises
    ------
    TrainingError
        Ray is not installed or not available at the address, or the folder is not shared, or a trial raises the error.
    """
    task = task._replace(config=replace(task.config, data=absolute(task.config.data)), run=task.run.resolve())
    cores = available_cores()
    here = workers or (cores if task.device == "cpu" else 1)
    drafts = study.under_way()
    with ray_tasks(address, here, max(1, cores // here), task.device) as cluster:
        at_once = workers or (here if address is None else cluster.capacity())
        started = set[int]()
        while True:
            while len(drafts) < at_once and len(study.trials) + len(drafts) < n_trials:
                drafts.append(study.begin(study.draw()))
            if not drafts:
                return
            _start(cluster, task, drafts, started)
            for draft, trial in cluster.wait(report):
                if trial.last is not None:
                    from_shared(read_history, task.run / draft.folder / fold_name(0))
                keep(draft, trial)
                drafts = [d for d in drafts if d.number != draft.number]


def _start(cluster: RayTasks, task: TrialTask, drafts: list[Draft], started: set[int]) -> None:
    """Start the trials that have not started; trials of the same settings share a folder and run one after the
    other."""
    busy = {draft.folder for draft in drafts if draft.number in started}
    for draft in drafts:
        if draft.number not in started and draft.folder not in busy:
            cluster.start(_train, task.run / draft.folder / fold_name(0), task, draft)
            started.add(draft.number)
            busy.add(draft.folder)


def _train(task: TrialTask, draft: Draft, report: Callable[[TrialProgress], None]) -> tuple[Draft, Trial]:
    """Train a trial, and return also the draft, which knows its validations, because the task has its own copy."""
    return draft, train_trial(task, draft, now_and_then(report))
