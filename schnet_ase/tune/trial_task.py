"""Train one trial of a search, in any process or on any machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from schnet_ase.crossval.folds import FoldTask, train_fold
from schnet_ase.data import TrainingSplit
from schnet_ase.errors import ConfigError, DivergenceError
from schnet_ase.registry.lookup import STATE
from schnet_ase.registry.provenance import Row
from schnet_ase.training.config import RunConfig
from schnet_ase.training.state import read_history
from schnet_ase.tune.trials import State, Trial

if TYPE_CHECKING:  # needs Optuna
    from schnet_ase.tune.study import Draft


class TrialProgress(NamedTuple):
    """The reported state of a trial."""

    trial: int
    step: int
    steps: int
    row: Row | None
    """The newest validation, reported once."""


class TrialTask(NamedTuple):
    """The common part of the trials of a search."""

    config: RunConfig
    fold: TrainingSplit
    run: Path
    """Folder of the search."""
    device: str


class _Pruned(Exception):
    """The trial should end early."""


def train_trial(task: TrialTask, draft: Draft, report: Callable[[TrialProgress], None]) -> Trial:
    """Train a trial, or resume it, until it ends or is pruned; report its validations to `draft`."""
    rows: list[Row] = []
    try:
        settings = task.config.with_values(draft.values)
    except ConfigError as error:
        return Trial(draft.number, draft.values, "failed", None, None, draft.folder, str(error))
    training = settings.training
    fold = FoldTask(settings, 0, task.fold, task.run / draft.folder, None, task.device)

    def take(row: Row) -> None:
        rows.append(row)
        draft.report(row)

    def judge(step: int, row: Row | None) -> None:
        report(TrialProgress(draft.number, step, training.steps, row))
        if row is not None:
            take(row)
            # Never prune during the warm-up of the learning rate, or if no steps are left to save.
            if training.warmup_steps < step < training.steps and draft.should_prune():
                raise _Pruned

    def outcome(state: State, reason: str = "") -> Trial:
        best = min(rows, key=lambda r: r.validation_loss, default=None)
        return Trial(draft.number, draft.values, state, rows[-1] if rows else None, best, draft.folder, reason)

    if (fold.folder / STATE).exists():
        for row in read_history(fold.folder)[:-1]:  # the last one is reported when the training resumes
            take(row)
    try:
        train_fold(fold, judge)
    except _Pruned:
        return outcome("pruned")
    except DivergenceError as error:
        return outcome("failed", str(error))
    return outcome("complete")
