"""k-fold cross-validation, which trains the members of an ensemble side by side."""

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
from schnet_ase.output.machine import available_cores
from schnet_ase.registry.card import Card
from schnet_ase.registry.provenance import Provenance
from schnet_ase.training.config import RunConfig
from schnet_ase.training.entry import describe_data, earlier_entry, write_entry
from schnet_ase.training.identity import formulas_to_keep, identity
from schnet_ase.training.run import load_beside, load_extra, load_frames
from schnet_ase.training.state import TrainingResult
from schnet_ase.training.stopping import Stopped, stop_on_signals
from schnet_ase.training.subsets import load_test, split_for_crossval
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
    """Train the folds and write a registry entry; the same call resumes an interrupted run.

    Parameters
    ----------
    config
        Validated configuration, with `config.folds` members and `config.data.calibration` frames that no fold uses and
        that calibrate the ensemble.
    folder
        Folder of the run, with one folder per fold for its checkpoints, metrics and learning curve.
    models
        Folder in which the entry ``<models>/<config.name>/`` is written, whole or not at all.
    initial
        Folder of an earlier run with as many folds, or an entry (name or folder): each fold starts from its weights, of
        the same network or of one with fewer features, see `train`. `check_start` checks as far as possible that these
        have not seen what is validated, calibrated or tested on here.
    device
        ``"cpu"`` or ``"cuda"``.
    workers
        Folds trained at the same time. One: in this process. More: each in its own process, and a script that calls
        this needs ``if __name__ == "__main__":``. None: one per core (cpu), or all in this process (cuda; with dropout
        one after the other), see `train_together`.
    executor
        ``"processes"``: processes of this machine. ``"ray"``: tasks of a Ray cluster, see `train_on_ray`.
    ray_address
        Address of the cluster, which then decides how many folds train at the same time; None: a cluster on this
        machine that begins and ends with the run.
    command
        Command that made the entry, for the card.
    report
        Callback for the progress of the folds.

    Returns
    -------
    Card
        Card of the new entry, or of the one that the same call wrote earlier.

    Raises
    ------
    TrainingError
        An entry of this name from another run exists, or a fold cannot resume, or Ray is not available, or `initial`
        has seen frames that are validated, calibrated or tested on here.
    CalibrationError
        There are too few folds or calibration frames; no calibration frames at all are accepted.
    DataError
        The data cannot be trained on.
    """
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
    _enough_to_calibrate(config, len(split.calibration))
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


def _enough_to_calibrate(config: RunConfig, n_frames: int) -> None:
    if not n_frames:
        return
    try:
        check_sizes(config.folds, n_frames)
    except CalibrationError as error:
        raise CalibrationError(
            f"{error}; give more, or set data.calibration = 0 for an ensemble without one"
        ) from error


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
    """Train one model per fold on the frames of `config.data.file`, or resume; see `crossval`.

    The caller must ensure that no fold starts from `initial` weights that have seen its validation frames.
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
    """End this process with its parent, even if that is killed, because the next start trains the same folds."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_REPORTS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _begin(parent: int) -> None:
    """Prepare a process of the pool: ignore Ctrl-C, which reaches all processes of a terminal; the parent passes it
    on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with(parent)


def _train_in_process(task: FoldTask, threads: int, queue: Queue[FoldProgress], stop: Event) -> TrainingResult:
    torch.set_num_threads(threads)
    return train_fold(task, fold_report(task, now_and_then(queue.put)), now_and_then_asked(stop.is_set))
