"""Trials of a search as tasks of a Ray cluster, several at the same time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from schnet_ase.crossval.folds import available_cores, now_and_then
from schnet_ase.crossval.ray_cluster import RayTasks, from_shared, ray_tasks
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
    """Train trials as tasks until `study` has `n_trials`, each drawn when there is room for it, those under way first.

    A task whose machine is lost is started again by Ray, and goes on from the trial's checkpoint.

    Parameters
    ----------
    study
        The trials so far.
    n_trials
        How many there are in the end.
    task
        Its data and folder must be where all machines find them.
    workers
        Trials at the same time; None: one a core of this machine (cpu), one (cuda), or as many as the cluster at
        `address` has CPUs (or GPUs) for.
    address
        See `ray_tasks`.
    report
        Told about the trials while they train.
    keep
        Called with each that is over, and must keep it in `study`.

    Raises
    ------
    TrainingError
        Ray is not installed or not there at the address; or the folder is not shared; or what the trials raise.
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
    """Start the trials that are not, but of the same settings, which have one folder, one after the other."""
    busy = {draft.folder for draft in drafts if draft.number in started}
    for draft in drafts:
        if draft.number not in started and draft.folder not in busy:
            cluster.start(_train, task.run / draft.folder / fold_name(0), task, draft)
            started.add(draft.number)
            busy.add(draft.folder)


def _train(task: TrialTask, draft: Draft, report: Callable[[TrialProgress], None]) -> tuple[Draft, Trial]:
    """The draft too, which has been told the validations: the task has a copy of its own."""
    return draft, train_trial(task, draft, now_and_then(report))
