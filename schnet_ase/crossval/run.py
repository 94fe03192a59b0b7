"""k-fold cross-validation: the members of an ensemble, trained side by side."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from functools import partial
from multiprocessing.managers import SyncManager
from pathlib import Path
from queue import Empty, Queue
from threading import Event
from typing import Literal

import torch

from schnet_ase.crossval.folds import (
    SECONDS_BETWEEN_REPORTS,
    FoldProgress,
    FoldTask,
    available_cores,
    checkpoints,
    fold_report,
    fold_tasks,
    now_and_then,
    now_and_then_asked,
    train_fold,
)
from schnet_ase.crossval.gpu import train_together
from schnet_ase.crossval.ray_cluster import check_ray
from schnet_ase.crossval.ray_folds import train_on_ray
from schnet_ase.data import TrainingSplit
from schnet_ase.errors import CalibrationError, TrainingError
from schnet_ase.evaluation.leakage import check_extra, check_start
from schnet_ase.registry.card import Card
from schnet_ase.registry.provenance import Provenance
from schnet_ase.training.config import RunConfig
from schnet_ase.training.entry import describe_data, earlier_entry, write_entry
from schnet_ase.training.identity import formulas_to_keep, identity
from schnet_ase.training.run import load_beside, load_extra, load_frames, load_test, split_for_crossval
from schnet_ase.training.state import TrainingResult
from schnet_ase.training.stopping import Stopped, stop_on_signals
from schnet_ase.uncertainty.fit import check_sizes

log = logging.getLogger("schnet_ase")
Executor = Literal["processes", "ray"]


def crossval(
    config: RunConfig,
    folder: Path,
    models: Path,
    *,
    initial: str | Path | None = None,
    device: str = "cpu",
    workers: int | None = None,
    executor: Executor = "processes",
    ray_address: str | None = None,
    command: str = "schnet_ase.crossval.run",
    report: Callable[[FoldProgress], None] = lambda progress: None,
) -> Card:
    """Train the folds and write a registry entry; the same call goes on with one that was interrupted.

    Parameters
    ----------
    config
        Validated configuration; `config.folds` members, `config.data.calibration` frames that no fold touches and
        the ensemble is calibrated on.
    folder
        Of the run: one folder a fold with its checkpoints, metrics and learning curve.
    models
        Where the entry ``<models>/<config.name>/`` is written, whole or not at all.
    initial
        Folder of an earlier run of as many folds, or an entry (name or folder): each fold starts from its weights, of
        the same network or of one with fewer features, see `train`. That no fold's training saw what is validated,
        calibrated or tested on here is checked as far as it can be, see `check_start`.
    device
        ``"cpu"`` or ``"cuda"``.
    workers
        Folds trained at the same time. One: in this process; more: each in a process of its own, and a script that
        calls this needs ``if __name__ == "__main__":``. None: one a core (cpu), all in this process (cuda; with dropout
        one after the other), see `train_together`.
    executor
        ``"processes"``: of this machine. ``"ray"``: tasks of a Ray cluster, see `train_on_ray`.
    ray_address
        Of the cluster, which then decides how many folds are trained at the same time; None: one on this machine that
        begins and ends with the run.
    command
        What to write into the card as the command that made the entry.
    report
        Told about the folds while they train.

    Returns
    -------
    Card
        Of the new entry, or of the one that the same call wrote earlier.

    Raises
    ------
    TrainingError
        There is an entry of this name already, of another run, or a fold cannot go on; or Ray is not there; or
        `initial` has seen frames that are validated, calibrated or tested on here.
    CalibrationError
        Too few folds or calibration frames, and not none of them.
    DataError
        The data cannot be trained on.
    """
    if config.data.calibration:
        try:
            check_sizes(config.folds, config.data.calibration)
        except CalibrationError as error:
            raise CalibrationError(
                f"{error}; give more, or set data.calibration = 0 for an ensemble without one"
            ) from error
    if ray_address is not None and (executor != "ray" or workers is not None):
        raise TrainingError(
            "a Ray address is for executor = 'ray' alone, and without a number of workers: leave one out"
        )
    if executor == "ray":
        check_ray()
    dataset = load_frames(config.data.file, config)
    test = load_test(config, dataset)
    split = split_for_crossval(config, dataset)
    extra = [load_extra(config, k, dataset) for k in range(config.folds)]
    check_extra(extra, dataset, split, test)
    weights = None if initial is None else checkpoints(initial, config.folds)
    started_from = None
    if weights is not None:
        started_from = check_start(weights, dataset, split, test, partial(load_beside, config))
    folds = fold_tasks(config, split.folds, folder, weights, device)
    tasks = [fold.with_data(dataset, more) for fold, more in zip(folds, extra, strict=True)]
    data = describe_data(config, dataset, test, split, initial=started_from, formulas=formulas_to_keep(tasks[0]))
    calibration_frames = tuple(split.calibration.tolist())
    members = [Provenance(identity(task), calibration_frames=calibration_frames) for task in tasks]
    entry = models / config.name
    if (earlier := earlier_entry(entry, data, members)) is not None:
        return earlier
    if weights is not None:
        log.info("%s: each fold starts with reference energies refitted to the data and forces as they were", folder)
    results = train_folds(
        config,
        split.folds,
        folder,
        initial=weights,
        device=device,
        workers=workers,
        executor=executor,
        ray_address=ray_address,
        report=report,
    )
    return write_entry(config, dataset, test, split, results, entry, command, data)


def train_folds(
    config: RunConfig,
    folds: Sequence[TrainingSplit],
    folder: Path,
    *,
    initial: Sequence[Path] | None = None,
    device: str = "cpu",
    workers: int | None = None,
    executor: Executor = "processes",
    ray_address: str | None = None,
    report: Callable[[FoldProgress], None] = lambda progress: None,
) -> list[TrainingResult]:
    """Train one model a fold on the frames of `config.data.file`, or go on with it; see `crossval`.

    That no fold starts from `initial` weights that have seen its validation frames is the caller's to see to.
    """
    tasks = fold_tasks(config, folds, folder, initial, device)
    on_cpu = device.partition(":")[0] == "cpu"
    if executor == "processes" and not on_cpu and workers is None and not config.model.dropout:
        return train_together(tasks, report)
    cores = available_cores()
    workers = min(len(folds), workers or (cores if on_cpu else 1))
    threads = max(1, cores // workers)
    if executor == "ray":
        return train_on_ray(tasks, workers, threads, ray_address, report)
    if workers == 1:
        return [train_fold(task, fold_report(task, report)) for task in tasks]
    context = multiprocessing.get_context("spawn")
    manager, parent = SyncManager(ctx=context), (os.getpid(),)
    manager.start(_end_with, parent)
    with manager, ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=parent) as pool:
        queue, stop = manager.Queue(), manager.Event()
        futures: list[Future[TrainingResult]] = [
            pool.submit(_train_in_process, task, threads, queue, stop) for task in tasks
        ]
        try:
            with stop_on_signals() as asked:
                while wait(futures, timeout=SECONDS_BETWEEN_REPORTS, return_when=FIRST_EXCEPTION).not_done:
                    _drain(queue, report)
                    if asked():
                        raise Stopped(f"stopped; states of the folds in {folder}; the same command resumes")
                    if any(f.done() and f.exception() for f in futures):
                        break
            _drain(queue, report)
            for future in futures:
                if future.done() and (error := future.exception()):
                    raise error
            return [future.result() for future in futures]
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _drain(queue: Queue[FoldProgress], report: Callable[[FoldProgress], None]) -> None:
    while True:
        try:
            report(queue.get_nowait())
        except Empty:
            return


def _end_with(parent: int) -> None:
    """Let this process end with its parent, which cannot tell when it is killed: a next start trains the same folds."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_REPORTS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _begin(parent: int) -> None:
    """In a process of the pool: Ctrl-C, which reaches all processes of a terminal, is the parent's to pass on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with(parent)


def _train_in_process(task: FoldTask, threads: int, queue: Queue[FoldProgress], stop: Event) -> TrainingResult:
    torch.set_num_threads(threads)
    return train_fold(task, fold_report(task, now_and_then(queue.put)), now_and_then_asked(stop.is_set))
