"""Trainings of the scaling study, each in its own process; finished ones are kept."""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from _learners import METHODS, Task
from _worker import peak_mb

from schnet_ase.data import TrainingSplit, read_dataset
from schnet_ase.data.labels.checks import check_frames
from schnet_ase.errors import DataError, SchNetError
from schnet_ase.output.files import atomic_write, sha256
from schnet_ase.output.progress import Progress
from schnet_ase.uncertainty.metrics import MEV

SEED = 0
REPEATS = 3
"""Number of times that predictions are made; the fastest counts."""


class Job(NamedTuple):
    """Parameters of a training."""

    method: str
    n: int
    train: Path
    test: Path
    steps: int
    """Number of training steps of SchNet; 0 for other methods."""

    @property
    def name(self) -> str:
        name = f"{self.method.replace(' ', '-')}-{self.n}"
        return f"{name}-{self.steps}" if self.steps else name

    def identity(self) -> dict[str, object]:
        """Return what the result depends on, without the paths of the files."""
        files = {"train": sha256(self.train), "test": sha256(self.test)}
        return {"method": self.method, "n": self.n, "steps": self.steps, **files}


class Result(NamedTuple):
    """Result of a training."""

    method: str
    n: int
    energy: float
    """MAE, meV."""
    forces: float | None
    """MAE, meV/Å; None for methods that learn no forces."""
    seconds: float
    """Processor time of the training."""
    memory_mb: float
    """Largest resident size during the training, less that before it."""
    kernel_mb: float
    """Size of the kernel matrix in float64."""
    milliseconds: float
    """Processor time to predict a frame."""
    parameters: int
    chosen: str


def split(n_frames: int, n: int) -> TrainingSplit:
    """Keep a fifth for validation and train on the first n others, so that larger sets contain the smaller ones.

    Raises
    ------
    DataError
        There are fewer than n others.
    """
    order = np.random.default_rng(SEED).permutation(n_frames)
    validation, others = np.split(order, [n_frames // 5])
    if len(others) < n or not len(validation):
        raise DataError(f"{n} frames to train on, of {len(others)}; ask for fewer or give a larger file")
    return TrainingSplit(others[:n], validation)


def measure(job: Job, folder: Path, report: Callable[[float], None]) -> Result:
    """Train and test, in this process."""
    from threadpoolctl import threadpool_limits  # comes with scikit-learn, which only this function needs

    torch.set_num_threads(1)
    threadpool_limits(1)
    method = next(m for m in METHODS if m.name == job.method)
    for package in method.packages:
        importlib.import_module(package)
    dataset, test = read_dataset(job.train), read_dataset(job.test)
    for data in (dataset, test):
        check_frames(data.frames, data.source, energies=True, forces=True)
    start = peak_mb()
    learned = method.learn(Task(dataset, split(len(dataset.frames), job.n), job.steps, folder / job.name), report)
    memory = peak_mb() - start
    learned.predict(test.frames)  # compiles
    times = []
    for _ in range(REPEATS):
        started = time.process_time()
        labels = learned.predict(test.frames)
        times.append(time.process_time() - started)
    energies = np.array([frame.energy for frame in test.frames])
    forces = np.array([frame.forces for frame in test.frames])
    rows = method.kernel_rows(job.n, forces.shape[1])
    return Result(
        job.method,
        job.n,
        MEV * float(np.abs(labels.energy - energies).mean()),
        None if labels.forces is None else MEV * float(np.abs(labels.forces - forces).mean()),
        learned.seconds,
        memory,
        8e-6 * rows**2,
        1000.0 * min(times) / len(test.frames),
        learned.parameters,
        learned.chosen,
    )


def _work(job: Job, folder: Path, made: Synchronized[float], parent: int) -> None:
    def report(share: float) -> None:
        made.value = share
        if os.getppid() != parent:  # the parent was killed; a new one may run this job again
            os._exit(1)

    result = measure(job, folder, report)
    atomic_write(folder / f"{job.name}.json", json.dumps({"job": job.identity(), "result": result._asdict()}))


def read_result(job: Job, folder: Path) -> Result | None:
    """Return the result of a finished job; None if it is not finished or was made with other data or steps."""
    file = folder / f"{job.name}.json"
    kept = json.loads(file.read_text()) if file.is_file() else {"job": None}
    return Result(**kept["result"]) if kept["job"] == job.identity() else None


def run(job: Job, folder: Path, progress: Progress) -> Result:
    """Return the result of a job, which runs in its own process if needed; `progress` is in hundredths of a job.

    Raises
    ------
    SchNetError
        The process ended without a result.
    """
    before = progress.done
    result = read_result(job, folder)
    if result is None:
        context = get_context("spawn")
        made = context.Value("d", 0.0)
        process = context.Process(target=_work, args=(job, folder, made, os.getpid()))
        process.start()
        try:
            while process.is_alive():
                process.join(timeout=1.0)
                progress.update(before + int(100 * made.value) - progress.done)
        finally:
            process.kill()
        result = read_result(job, folder)
    if result is None:
        raise SchNetError(f"{job.name}: its process ended with status {process.exitcode} and no result")
    progress.update(before + 100 - progress.done)
    return result
