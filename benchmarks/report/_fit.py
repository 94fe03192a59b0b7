"""What the experiments of the report share: frames and which serve what, SchNet's training, and what is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from _start import TRAINING
from ase.units import kcal, mol

from schnet_ase import SchNet, SchNetConfig
from schnet_ase.data import Dataset, Frame, TrainingSplit, read_dataset, split_folds
from schnet_ase.data.batches import make_examples
from schnet_ase.data.labels.checks import check_frames
from schnet_ase.errors import DataError, SchNetError
from schnet_ase.evaluation.evaluate import Evaluation, evaluate
from schnet_ase.output.progress import Progress
from schnet_ase.training.config import DataConfig, RunConfig, TrainingConfig
from schnet_ase.training.single import prepared
from schnet_ase.training.state import TrainingResult
from schnet_ase.training.task import TrainingTask

FOLDS, SEED = 5, 0
"""As `crossval` splits for the shipped ensembles; the first fold is trained."""
FRAMES_HELP = "For training and validation, at most; drawn from DATA."
HELD_OUT_HELP = "How many frames of each DATA are kept apart without --test."
TEST_HELP = (
    "File of frames kept apart, or how many of DATA; once per DATA, in the same order.  [default: see --held-out]"
)
Command = Callable[..., Any]


class Target(NamedTuple):
    """What a training learns from."""

    name: str
    energy_weight: float
    force_weight: float


ENERGIES, FORCES, BOTH = Target("energies", 0.01, 0.0), Target("forces", 0.0, 1.0), Target("both", 0.01, 1.0)


class Case(NamedTuple):
    """A data set, and which of its frames serve what."""

    name: str
    file: str
    dataset: Dataset
    split: TrainingSplit
    test: Dataset
    """Frames that no training sees and none is selected by."""

    @property
    def has_forces(self) -> bool:
        return self.dataset.frames[0].forces is not None


def data_options(command: Command) -> Command:
    """The arguments that `read_cases` takes, for a command."""
    path = click.Path(path_type=Path)
    for option in (
        click.option("--held-out", default=100, show_default=True, type=click.IntRange(1), help=HELD_OUT_HELP),
        click.option("--frames", default=1000, show_default=True, type=click.IntRange(FOLDS), help=FRAMES_HELP),
        click.option("--test", multiple=True, type=path, help=TEST_HELP),
        click.argument("data", nargs=-1, required=True, type=path),
    ):
        command = option(command)
    return command


def read_cases(data: Sequence[Path], test: Sequence[Path], frames: int, held_out: int) -> list[Case]:
    """Read data sets and the frames for their tests.

    Raises
    ------
    SchNetError
        Another number of files for tests than of data sets.
    DataError
        As `read_dataset`, `check_frames` and `split_folds`, or tests of another molecule than the training's.
    """
    if test and len(test) != len(data):
        raise SchNetError(f"{len(test)} files for tests of {len(data)} data sets; give --test once per DATA, or never")
    given = [int(file.name) if file.name.isdecimal() else file for file in test]
    tests: Sequence[Path | int] = given or [held_out] * len(data)
    return [read_case(*case, frames) for case in zip(names(data), data, tests, strict=True)]


def read_case(name: str, file: Path, test: Path | int, frames: int) -> Case:
    """A data set, with a file or so many of its own frames for tests, at most `frames` for training and validation."""
    dataset = _checked(file)
    n_frames = len(dataset.frames)
    n_held_out = test if isinstance(test, int) else 0
    split = split_folds(n_frames, FOLDS, n_held_out, SEED, n_training=min(frames, n_frames - n_held_out))
    if isinstance(test, int):
        tested = dataset._replace(frames=[dataset.frames[i] for i in split.calibration])
    else:
        tested = _checked(test)
        trained = compositions(dataset.frames)
        if len(trained) == 1 and compositions(tested.frames) != trained:
            raise DataError(f"{test}: has other atoms than {file}; give --test in the order of DATA")
    return Case(name, str(file), dataset, split.folds[0], tested)


def _checked(file: Path) -> Dataset:
    dataset = read_dataset(file)
    check_frames(dataset.frames, dataset.source, energies=True, forces=dataset.frames[0].forces is not None)
    return dataset


def names(files: Sequence[Path]) -> list[str]:
    """A name for each: the file's, with its folder's where that alone would be another's too."""
    stems = [file.stem.removesuffix(":") for file in files]
    return [
        stem if stems.count(stem) == 1 else f"{file.parent.name}-{stem}"
        for file, stem in zip(files, stems, strict=True)
    ]


def compositions(frames: Sequence[Frame]) -> set[tuple[int, ...]]:
    return {tuple(np.sort(frame.geometry.numbers).tolist()) for frame in frames}


def training_for(steps: int, target: Target) -> TrainingConfig:
    """The recipe, shortened, and without the average of weights: few steps leave it behind."""
    return replace(
        TRAINING,
        steps=steps,
        warmup=steps // 4,
        validate_every=max(1, steps // 10),
        energy_weight=target.energy_weight,
        force_weight=target.force_weight,
        ema=0.0,
    )


def train_schnet(
    case: Case,
    network: SchNetConfig,
    training: TrainingConfig,
    folder: Path,
    progress: Progress,
    *,
    total_energies: bool = False,
) -> TrainingResult:
    """Train in a folder, or resume; `progress` counts steps. `total_energies` starts from the same weights."""
    config = RunConfig("report", DataConfig(case.file), network, training, FOLDS, SEED)
    before = progress.done

    def report(step: int, row: object) -> None:
        progress.update(before + step - progress.done)

    with prepared(TrainingTask(config, case.dataset, case.split, folder, config.seed)) as trainer:
        if total_energies and not trainer.step:
            learn_total_energies(trainer.model)
            learn_total_energies(trainer.average)
        return trainer.run(report)


def evaluate_schnet(model: SchNet, dataset: Dataset) -> Evaluation:
    frames = dataset.frames
    return evaluate(model, make_examples(frames, range(len(frames)), model.config.pair_cutoff))


def learn_total_energies(model: SchNet) -> None:
    """As in the report: the network's output in kcal/mol is the energy itself."""
    model.scale.fill_(kcal / mol)
    model.reference.zero_()


def cell(value: float | None, unit: float, digits: int) -> str:
    """A number in a table, in a unit; of a label that is not in the data there is none."""
    return "–" if value is None else f"{unit * value:.{digits}f}"
