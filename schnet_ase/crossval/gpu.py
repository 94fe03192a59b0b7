"""Train all folds of a cross-validation in one process and one program, because a single fold leaves a GPU idle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from schnet_ase.crossval.folds import FoldProgress, FoldTask, fold_report, prepared_fold
from schnet_ase.data.batches import batch_to, same_shape
from schnet_ase.training.run import load_frames
from schnet_ase.training.state import TrainingResult
from schnet_ase.training.step.padding import side_by_side
from schnet_ase.training.step.side_by_side import SideBySide
from schnet_ase.training.step.steps import step_maker
from schnet_ase.training.stopping import Stopped, stop_on_signals
from schnet_ase.training.trainer import Report, Trainer


def train_together(tasks: Sequence[FoldTask], report: Callable[[FoldProgress], None]) -> list[TrainingResult]:
    """Train folds of one configuration without dropout, or resume them; each keeps its own folder.

    A fold gets the gradients that `train_fold` would give it, to rounding, and everything else in the same way: either
    function can resume what the other began.
    """
    config = tasks[0].config
    dataset = load_frames(config.data.file, config, quiet=True)
    with ExitStack() as stack:
        trainers = [stack.enter_context(prepared_fold(task, dataset)) for task in tasks]
        reports = [fold_report(task, report) for task in tasks]
        with stop_on_signals() as asked:
            for trainer, own in zip(trainers, reports, strict=True):
                trainer.begin(own)
            while under_way := [pair for pair in zip(trainers, reports, strict=True) if not pair[0].finished]:
                _until_one_is_finished(under_way, asked)
        return [trainer.result() for trainer in trainers]


def _until_one_is_finished(folds: Sequence[tuple[Trainer, Report]], asked: Callable[[], bool]) -> None:
    trainers = [trainer for trainer, _ in folds]
    model = SideBySide([trainer.model for trainer in trainers])
    one_shape = all(same_shape(trainer.examples) for trainer in trainers)
    gradient_step = step_maker(trainers[0].training, 0.0, one_shape)(model)
    while not any(trainer.finished for trainer in trainers):
        if asked():
            for trainer in trainers:
                trainer.save()
            run = trainers[0].folder.parent
            raise Stopped(f"stopped at step {trainers[0].step}; states in {run}; the same command resumes")
        batch = side_by_side([trainer.batch() for trainer in trainers])
        losses = gradient_step(batch_to(batch, trainers[0].device)).tolist()
        model.hand_out_gradients()
        for (trainer, report), loss in zip(folds, losses, strict=True):
            trainer.advance(loss, report)
