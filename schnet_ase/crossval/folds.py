"""Train one fold of a cross-validation, in any process or on any machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from schnet_ase.data import Dataset, TrainingSplit
from schnet_ase.errors import TrainingError
from schnet_ase.registry.loading import locate_members
from schnet_ase.registry.lookup import BEST
from schnet_ase.registry.provenance import Row
from schnet_ase.training.config import RunConfig
from schnet_ase.training.entry import fold_name, fold_seed
from schnet_ase.training.run import load_extra, load_frames
from schnet_ase.training.single import prepared
from schnet_ase.training.state import TrainingResult
from schnet_ase.training.task import TrainingTask
from schnet_ase.training.trainer import Report, Trainer

SECONDS_BETWEEN_REPORTS = 0.5


class FoldProgress(NamedTuple):
    """The reported state of a fold."""

    fold: int
    """Number of the fold, counted from 1."""
    step: int
    row: Row | None
    """The newest validation, reported once."""


class _Progress(Protocol):
    @property
    def row(self) -> Row | None: ...


P = TypeVar("P", bound=_Progress)


class FoldTask(NamedTuple):
    """A fold to train."""

    config: RunConfig
    k: int
    """Index of the fold, counted from 0."""
    split: TrainingSplit
    run: Path
    """Folder of the run."""
    initial: Path | None
    """Checkpoint whose weights to start from."""
    device: str

    @property
    def folder(self) -> Path:
        """Folder of the fold."""
        return self.run / fold_name(self.k)

    def with_data(self, dataset: Dataset, extra: Dataset | None) -> TrainingTask:
        """The training, with the frames of its configuration's `file` and more that it trains on."""
        seed = fold_seed(self.config, self.k)
        return TrainingTask(self.config, dataset, self.split, self.folder, seed, extra, self.initial, self.device)


def fold_tasks(
    config: RunConfig, folds: Sequence[TrainingSplit], run: Path, initial: Sequence[Path] | None, device: str
) -> list[FoldTask]:
    """The folds of a run, each from its own initial weights where there are any."""
    weights = [None] * len(folds) if initial is None else initial
    return [
        FoldTask(config, k, split, run, start, device)
        for k, (split, start) in enumerate(zip(folds, weights, strict=True))
    ]


def checkpoints(start: str | Path, folds: int) -> list[Path]:
    """Return the checkpoints of a run's folds, or of the members of an entry (by name or folder), in order.

    Raises
    ------
    TrainingError
        Their number differs from `folds`.
    RegistryError
        `start` is neither a run nor an entry.
    """
    run = [Path(start) / fold_name(k) / BEST for k in range(folds)]
    files = run if run[0].is_file() else [member.path for member in locate_members(start)]
    if len(files) != folds:
        raise TrainingError(f"{start}: has {len(files)} members for {folds} folds to start from; give as many")
    return files


def train_fold(task: FoldTask, report: Report, stop: Callable[[], bool] = lambda: False) -> TrainingResult:
    """Train a fold, or resume it, until it ends or `stop` returns True; see `Trainer.run`."""
    with prepared_fold(task, load_frames(task.config.data.file, task.config, quiet=True)) as trainer:
        return trainer.run(report, stop)


def prepared_fold(task: FoldTask, dataset: Dataset) -> AbstractContextManager[Trainer]:
    """The training of a fold on the frames of its configuration's `file`; see `prepared`."""
    return prepared(task.with_data(dataset, load_extra(task.config, task.k, dataset, quiet=True)))


def fold_report(task: FoldTask, send: Callable[[FoldProgress], None]) -> Report:
    """Make a callback for a training that sends its reports as those of the fold."""
    return lambda step, row: send(FoldProgress(task.k + 1, step, row))


def now_and_then(send: Callable[[P], None]) -> Callable[[P], None]:
    """Make a callback that passes on every validation, but other steps only once in a while."""
    last = time.monotonic()

    def report(progress: P) -> None:
        nonlocal last
        now = time.monotonic()
        if progress.row is not None or now - last >= SECONDS_BETWEEN_REPORTS:
            last = now
            send(progress)

    return report


def now_and_then_asked(ask: Callable[[], bool]) -> Callable[[], bool]:
    """Make a function that repeats the last answer and asks again only once in a while."""
    last, answer = time.monotonic(), False

    def newest() -> bool:
        nonlocal last, answer
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_REPORTS:
            last, answer = now, ask()
        return answer

    return newest
