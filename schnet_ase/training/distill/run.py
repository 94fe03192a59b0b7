"""A complete distillation: frames from the teacher's dynamics, the training, and the entry that keeps the student."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from schnet_ase.data import Dataset, Frame, LabelOptions, TrainingSplit
from schnet_ase.data.labels.options import UNSAID
from schnet_ase.networks import SchNetConfig
from schnet_ase.networks.widen import fits
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import Card, Student
from schnet_ase.registry.loading import locate
from schnet_ase.registry.provenance import Row
from schnet_ase.training.config import DataConfig, RunConfig
from schnet_ase.training.distill.config import Sampling, StudentConfig
from schnet_ase.training.distill.dynamics import load_runs, sample
from schnet_ase.training.distill.keep import destination, keep_student
from schnet_ase.training.distill.labelled import Labelled
from schnet_ase.training.distill.own import NONE, calibration_of, coverage_of, errors_on_tests, own_frames
from schnet_ase.training.distill.teacher import Teacher
from schnet_ase.training.history import describe
from schnet_ase.training.single import train
from schnet_ase.training.state import TrainingResult

Progress = Callable[[str, int, int, str], None]
"""Callback that receives the name of the stage, how much of it is done, how much there is, and a note."""


class Distillation(NamedTuple):
    """Result of a distillation."""

    card: Card
    """Card of the entry with its student."""
    student: Student
    """The student's part of the card."""
    training: TrainingResult
    """Result of the student's training."""


def distill(
    entry: str,
    folder: Path,
    config: StudentConfig,
    *,
    sampling: Sampling | None = None,
    data_root: Path | None = None,
    labels: LabelOptions = UNSAID,
    models: Path | None = None,
    device: str = "cpu",
    command: str = "schnet_ase.training.distill.distill",
    report: Progress = lambda stage, done, total, note: None,
) -> Distillation:
    """Train one network on the mean of an entry's members and keep it in the entry.

    The frames come from Langevin dynamics with that mean, which also labels them. A run ends if a `Guard` stops it or
    the members differ by more than a monitor accepts for frames to keep, and another run follows. The last runs are
    used for validation only. A call after an interruption resumes: complete runs are kept, and the training continues
    with the same numbers.

    Parameters
    ----------
    entry
        Name or folder of a registry entry whose members were trained on forces.
    folder
        Folder of the run, for frames and training.
    config
        Network and training of the student. It starts from the weights of the best member if this has the same
        architecture, or one with fewer features; otherwise from random weights.
    sampling
        Parameters of the dynamics; None: the defaults.
    data_root
        Folder of the entry's data. If given, the student also learns, with the teacher's labels, from the frames that
        the members were trained or validated on, and is tested on the test frames of its teacher.
    labels
        Options for reading the labels of these data, if the entry was trained with such options.
    models
        Folder for a copy of the entry that keeps the student; None: the entry itself keeps it.
    device
        Device of the training, ``"cpu"`` or ``"cuda"``.
    command
        Command to state on the card.
    report
        Callback for the progress of each stage.

    Returns
    -------
    Distillation
        The card of the entry with its student, and the training.

    Raises
    ------
    RegistryError
        There is no such entry, or it is not writable.
    TrainingError
        The entry was not trained on forces, its dynamics leave the training domain again and again, or `folder` has
        another distillation.
    DataError
        The data are not those of the entry.
    """
    sampling = sampling or Sampling()
    teacher = Teacher.of(entry)
    card = teacher.card
    kept_in = destination(card, models)  # first, so that a mistake shows now and not after hours
    own = NONE if data_root is None else own_frames(card, data_root, labels)
    starts = teacher.starts(own.learned, len(sampling.runs))
    files = sample(
        teacher, sampling, starts, folder / "frames", lambda done: report("frames", done, sampling.frames, "")
    )
    apart = sampling.kept_apart
    n_own = len(own.learned)
    taught = teacher.label(own.learned, lambda done: report("own frames", done, n_own, ""))
    runs, validation = load_runs(files, apart)
    dataset, split = _dataset(card, [*runs, *taught], validation, sha256(*files))
    steps = config.training.steps
    run = RunConfig(
        name=f"{card.name}-student", data=DataConfig(file=dataset.source), model=config.model, training=config.training
    )

    def told(step: int, row: Row | None) -> None:
        report("student", step, steps, "" if row is None else describe(row))

    result = train(
        run,
        dataset,
        split,
        folder / "training",
        seed=sampling.seed,
        initial=_initial(entry, config.model),
        device=device,
        report=told,
    )
    words = (
        f"{sampling.frames:,} frames of {len(files)} runs at {sampling.temperatures[0]:g} to "
        f"{sampling.temperatures[1]:g} K, {apart} of them for validation"
    )
    calibration = calibration_of(card, result.model, own)
    student = Student(
        sha256="",
        validation=result.best.errors,
        test=None if own.test is None else errors_on_tests(card, result.model, own.test),
        frames=f"{words}, and {n_own:,} that the members learned from" if n_own else words,
        seconds=round(result.history[-1].seconds, 1),
        command=command,
        calibration=calibration,
        coverage=coverage_of(card, result.model, calibration, own.test),
    )
    card = keep_student(card, kept_in, result, student)
    assert card.student is not None
    return Distillation(card, card.student, result)


def _initial(entry: str, config: SchNetConfig) -> Path | None:
    """Return the checkpoint of the best member if the student can start from it; None: random weights."""
    best = locate(entry, student=False)
    return best.path if fits(best.model.config, config) else None


def _dataset(
    card: Card, training: list[Labelled], validation: list[Labelled], digest: str
) -> tuple[Dataset, TrainingSplit]:
    """Return all frames as a dataset, and the split into training and validation."""
    parts: list[list[Frame]] = [[frame for part in some for frame in part.frames()] for some in (training, validation)]
    first, last = parts
    dataset = Dataset([*first, *last], f"frames of {card.name}", digest, "Å, eV, eV/Å")
    order = np.arange(len(dataset.frames))
    return dataset, TrainingSplit(order[: len(first)], order[len(first) :])
