"""Folds as tasks of a Ray cluster: one that begins and ends with the run on this machine, or one that is there."""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from schnet_ase.errors import CheckpointError, TrainingError
from schnet_ase.training.config import absolute
from schnet_ase.training.folds import SECONDS_BETWEEN_REPORTS, FoldProgress, FoldTask, now_and_then, train_fold
from schnet_ase.training.state import TrainingResult, read_result

_SECONDS_TO_ANSWER = 10.0


def train_on_ray(
    tasks: Sequence[FoldTask],
    workers: int,
    threads: int,
    address: str | None,
    report: Callable[[FoldProgress], None],
) -> list[TrainingResult]:
    """Train folds as tasks; their results come back through the run's folder, which all machines share.

    A task whose machine is lost is started again by Ray, and goes on from its checkpoint.

    Parameters
    ----------
    tasks
        The folds. Their data and folders must be where all machines find them.
    workers, threads
        Of a cluster on this machine: folds trained at the same time, and threads of each.
    address
        Of a cluster that is there, as `ray.init` takes it; it trains as many folds at a time as it has CPUs (or GPUs)
        for. None: one on this machine.
    report
        Told about the folds while they train.

    Raises
    ------
    TrainingError
        Ray is not installed or not there at the address; or the folder is not shared; or what the folds raise.
    """
    ray, queues = check_ray()
    tasks = [_everywhere(task) for task in tasks]
    _connect(ray, address, workers)
    try:
        remote = ray.remote(num_cpus=1, num_gpus=int(tasks[0].device == "cuda"))(_train)
        queue = queues.Queue(actor_options={"num_cpus": 0})
        pending = [remote.remote(task, threads if address is None else 1, queue) for task in tasks]
        while pending:
            done, pending = ray.wait(pending, num_returns=len(pending), timeout=SECONDS_BETWEEN_REPORTS)
            for _ in range(queue.qsize()):
                report(queue.get())
            for finished in done:
                _result(ray, finished)
    finally:
        ray.shutdown()  # of a cluster on this machine the whole, of another what this run has there
    try:
        return [read_result(task.folder) for task in tasks]
    except CheckpointError as error:
        raise TrainingError(f"{error}; all machines of a Ray cluster must share the run's folder: --output") from error


def check_ray() -> tuple[Any, Any]:
    """The modules `ray` and `ray.util.queue`.

    Raises
    ------
    TrainingError
        Ray is not installed.
    """
    try:
        return importlib.import_module("ray"), importlib.import_module("ray.util.queue")
    except ImportError as error:
        message = "the executor 'ray' needs Ray, which is not installed; pip install 'schnet_ase[ray]'"
        raise TrainingError(message) from error


def _everywhere(task: FoldTask) -> FoldTask:
    """The same with absolute paths: a task runs in another folder."""
    config = replace(task.config, data=absolute(task.config.data))
    initial = None if task.initial is None else task.initial.resolve()
    return task._replace(config=config, run=task.run.resolve(), initial=initial)


def _train(task: FoldTask, threads: int, queue: Any) -> None:
    torch.set_num_threads(threads)
    train_fold(task, now_and_then(task, queue.put))


def _result(ray: Any, finished: Any) -> None:
    try:
        ray.get(finished)
    except ray.exceptions.RayTaskError as error:  # with the task's whole traceback as its message
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise TrainingError(f"a fold was lost ({_line(error)}); the same command goes on") from error


def _connect(ray: Any, address: str | None, workers: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no report of what runs here to others
    try:
        if address is None:
            ray.init("local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        else:
            _knock(address)
            ray.init(address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        where = "on this machine" if address is None else f"at {address}"
        raise TrainingError(f"no Ray cluster {where} ({_line(error)}); start one or correct --ray-address") from error


def _knock(address: str) -> None:
    """Raise an OSError if nobody listens at ``host:port``, which Ray itself would wait for without end."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
