"""One fold of a cross-validation, wherever it is trained."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from schnet_ase.data import TrainingSplit
from schnet_ase.training.config import RunConfig
from schnet_ase.training.entry import fold_name, fold_seed
from schnet_ase.training.history import Row
from schnet_ase.training.run import load_frames
from schnet_ase.training.state import BEST, TrainingResult
from schnet_ase.training.trainer import Report, train

SECONDS_BETWEEN_REPORTS = 0.5


class FoldProgress(NamedTuple):
    """A fold's state, as it is reported."""

    fold: int
    """Counted from 1."""
    step: int
    row: Row | None
    """The newest validation, once after it was made."""


class FoldTask(NamedTuple):
    """A fold to train."""

    config: RunConfig
    k: int
    """Index of the fold."""
    split: TrainingSplit
    run: Path
    """Folder of the run."""
    initial: Path | None
    """Folder of the run whose fold's weights to start from."""
    device: str

    @property
    def folder(self) -> Path:
        """Of the fold."""
        return self.run / fold_name(self.k)


def train_fold(task: FoldTask, report: Report) -> TrainingResult:
    """Train a fold, or go on with it."""
    return train(
        task.config,
        load_frames(task.config.data.file, task.config),
        task.split,
        task.folder,
        seed=fold_seed(task.config, task.k),
        initial=None if task.initial is None else task.initial / fold_name(task.k) / BEST,
        device=task.device,
        report=report,
    )


def now_and_then(task: FoldTask, send: Callable[[FoldProgress], None]) -> Report:
    """A report that passes on every validation, but of the other steps one in a while."""
    last = time.monotonic()

    def report(step: int, row: Row | None) -> None:
        nonlocal last
        now = time.monotonic()
        if row is not None or now - last >= SECONDS_BETWEEN_REPORTS:
            last = now
            send(FoldProgress(task.k + 1, step, row))

    return report
