"""Train folds as tasks of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from schnet_ase.crossval.folds import FoldProgress, FoldTask, fold_report, now_and_then, train_fold
from schnet_ase.crossval.ray_cluster import from_shared, ray_tasks
from schnet_ase.training.config import absolute
from schnet_ase.training.state import TrainingResult, read_result


def train_on_ray(
    tasks: Sequence[FoldTask],
    workers: int,
    threads: int,
    address: str | None,
    report: Callable[[FoldProgress], None],
) -> list[TrainingResult]:
    """Train folds as tasks; their results come back through the folder of the run, which all machines share.

    If a machine is lost, Ray starts its task again, and the task resumes from its checkpoint.

    Parameters
    ----------
    tasks
        The folds. All machines must find their data and folders.
    workers, threads, address
        See `ray_tasks`.
    report
        Callback for the progress of the folds.

    Raises
    ------
    TrainingError
        Ray is not installed or not available at the address, or the folder is not shared, or a fold raises the error.
    """
    tasks = [_everywhere(task) for task in tasks]
    with ray_tasks(address, workers, threads, tasks[0].device) as cluster:
        for task in tasks:
            cluster.start(_train, task.folder, task)
        left = len(tasks)
        while left:
            left -= len(cluster.wait(report))
    return [from_shared(read_result, task.folder) for task in tasks]


def _everywhere(task: FoldTask) -> FoldTask:
    """Return the task with absolute paths, because it runs in another folder."""
    config = replace(task.config, data=absolute(task.config.data))
    initial = None if task.initial is None else task.initial.resolve()
    return task._replace(config=config, run=task.run.resolve(), initial=initial)


def _train(task: FoldTask, report: Callable[[FoldProgress], None]) -> None:
    train_fold(task, fold_report(task, now_and_then(report)))
