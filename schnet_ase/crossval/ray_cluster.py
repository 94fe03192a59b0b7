"""Run the tasks of a run on a Ray cluster: a cluster on this machine for the run, or a running one."""

from __future__ import annotations

import importlib
import os
import pickle
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock, Timeout

from schnet_ase.crossval.folds import SECONDS_BETWEEN_REPORTS
from schnet_ase.errors import CheckpointError, TrainingError
from schnet_ase.training.state import LOCK

_SECONDS_TO_ANSWER = 10.0
_SECONDS_TO_END = 30.0
T = TypeVar("T")


class RayTasks:
    """Tasks in progress on a cluster, each with one CPU, and with ``device="cuda"`` also one GPU; see `ray_tasks`."""

    def __init__(self, ray: Any, queues: Any, device: str, threads: int) -> None:
        self._ray, self._queues, self._threads = ray, queues, threads
        self._resource = "GPU" if device == "cuda" else "CPU"
        self._run = ray.remote(num_cpus=1, num_gpus=int(device == "cuda"))(_run)
        self._queue: Any = None
        self._under_way: list[Any] = []

    def capacity(self) -> int:
        """Return the number of tasks for which the cluster has CPUs, or GPUs."""
        return max(1, int(self._ray.cluster_resources().get(self._resource, 0)))

    def start(self, function: Callable[..., Any], folder: Path, *arguments: Any) -> None:
        """Call ``function(*arguments, report)`` in a task, and again if its machine is lost.

        No other task may train in `folder`. `wait` passes on its reports.
        """
        if self._queue is None:
            self._queue = self._queues.Queue(actor_options={"num_cpus": 0})
        self._under_way.append(self._run.remote(function, folder, arguments, self._threads, self._queue))

    def wait(self, report: Callable[[Any], None]) -> list[Any]:
        """Return the results of tasks that have just ended; meanwhile pass reports of tasks on to `report`.

        Raises
        ------
        TrainingError
            A task was lost for good, or raised the error.
        """
        waiting = {"num_returns": len(self._under_way), "timeout": SECONDS_BETWEEN_REPORTS}
        done, self._under_way = self._ray.wait(self._under_way, **waiting)
        for _ in range(self._queue.qsize()):
            report(pickle.loads(self._queue.get()))
        return [_result(self._ray, finished) for finished in done]


@contextmanager
def ray_tasks(address: str | None, workers: int, threads: int, device: str) -> Iterator[RayTasks]:
    """Provide a cluster for tasks; tasks in progress at the end are abandoned.

    Parameters
    ----------
    address
        Address of a running cluster, as for `ray.init`; it runs as many tasks at a time as it has CPUs (or GPUs) for.
        None: a cluster on this machine.
    workers, threads
        For a cluster on this machine: tasks at the same time, and threads of each.
    device
        ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    TrainingError
        Ray is not installed or not available at the address.
    """
    ray, queues = check_ray()
    _connect(ray, address, workers)
    try:
        yield RayTasks(ray, queues, device, threads if address is None else 1)
    finally:
        ray.shutdown()  # ends a cluster on this machine, but on another one only what belongs to this run


def check_ray() -> tuple[Any, Any]:
    """Return the modules `ray` and `ray.util.queue`.

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


def from_shared(read: Callable[[Path], T], folder: Path) -> T:
    """Return what `read` finds in the folder of a finished task.

    Raises
    ------
    TrainingError
        It finds nothing.
    """
    try:
        return read(folder)
    except CheckpointError as error:
        raise TrainingError(f"{error}; all machines of a Ray cluster must share the run's folder: --output") from error


def _run(function: Callable[..., Any], folder: Path, arguments: tuple[Any, ...], threads: int, queue: Any) -> Any:
    torch.set_num_threads(threads)
    _wait_until_free(folder)
    # Sent as bytes, because the queue, a process of its own, would import PyTorch to hold the reports.
    return function(*arguments, lambda progress: queue.put(pickle.dumps(progress)))


def _wait_until_free(folder: Path) -> None:
    """Wait for a task of a killed run that still trains in the folder; it ends a moment after the run."""
    if folder.exists():
        with (
            suppress(Timeout),
            FileLock(folder / LOCK).acquire(timeout=_SECONDS_TO_END),
        ):  # else training raises an error
            pass


def _result(ray: Any, finished: Any) -> Any:
    try:
        return ray.get(finished)
    except ray.exceptions.RayTaskError as error:  # its message is the whole traceback of the task
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise TrainingError(f"a training was lost ({_line(error)}); the same command resumes") from error


def _connect(ray: Any, address: str | None, workers: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # sends no usage reports
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
    """Raise an OSError if nothing listens at ``host:port``, because Ray itself would wait forever."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
