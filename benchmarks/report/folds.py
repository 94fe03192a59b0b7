"""Table 3 of the report: five folds, learned from total energies as there, and less the reference energies.

In the report two of five folds of ISO17 had validation losses of 30 to 190 where the others stayed below 3. Here its
default network learns each fold of DATA twice by Adam, on the same frames in the same order from the same weights: with
the total energy in kcal/mol as the target, and less the reference energies, as the package trains. Of the validations
in the second half of the steps stand the smallest, largest and mean loss and the standard deviation; of the largest
how much of it is the energy's, the energy's RMSE, and its MAE over its RMSE, which is 1 if all are off by the same.
Trainings are kept in --runs, and the same command resumes them.

\b
    cd benchmarks
    python -m report.folds reference.db --output ../docs/report
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from _report import exit_on_error, publish
from matplotlib.figure import Figure
from report._fit import FOLDS, SEED, Case, names, read_case, train_schnet

from schnet_ase import SchNetConfig
from schnet_ase.data import split_folds
from schnet_ase.errors import DataError
from schnet_ase.output.progress import Progress
from schnet_ase.training.config import TrainingConfig
from schnet_ase.training.history import Row
from schnet_ase.uncertainty.metrics import KCAL_PER_MOL

NETWORK = SchNetConfig.default()
VALIDATIONS = 50
TARGETS = ("total energies", "less references")
HEADER = (
    *("learned from", "fold", "minimum", "maximum", "mean", "standard deviation"),
    *("energy's part of the maximum", "energy RMSE there (kcal/mol)", "MAE / RMSE of the energy there"),
)
NOTE = f"""\
Validation losses in (kcal/mol/Å)², ρ = {TrainingConfig().energy_weight:g}, in the second half of {{steps:,}} steps a
fold; {{training:,}} frames for training and {{validation:,}} for validation."""


class Course(NamedTuple):
    """Of a fold's training."""

    target: str
    fold: int
    rows: Sequence[Row]
    """Its validations."""

    @property
    def losses(self) -> list[float]:
        """(kcal/mol/Å)²."""
        return [KCAL_PER_MOL**2 * row.validation_loss for row in self.rows]

    def later(self) -> Sequence[Row]:
        """Those in the second half of the steps."""
        return [row for row in self.rows if row.step > self.rows[-1].step / 2]


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--frames", default=4000, show_default=True, type=click.IntRange(FOLDS), help="At most so many of DATA.")
@click.option("--steps", default=3000, show_default=True, type=click.IntRange(1), help="Of every training.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("../runs/report"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Folder for folds.md, .csv and .png.")
@exit_on_error
def main(data: Path, frames: int, steps: int, runs: Path, output: Path | None) -> None:
    case = read_case(names([data])[0], data, 0, frames)
    if not case.has_forces:
        raise DataError(f"{data}: has no forces; the report learned this table from both")
    n_frames = len(case.dataset.frames)
    folds = split_folds(n_frames, FOLDS, 0, SEED, n_training=min(frames, n_frames)).folds
    courses = []
    with Progress(len(TARGETS) * FOLDS * steps, "folds") as progress:
        for target in TARGETS:
            for k, split in enumerate(folds, start=1):
                courses.append(learn(target, k, case._replace(split=split), steps, runs, progress))
                progress.print(" ".join(row(courses[-1])))
    note = NOTE.format(steps=steps, training=len(folds[0].training), validation=len(folds[0].validation))
    publish("folds", "Learning of the folds", HEADER, [row(course) for course in courses], draw(courses), output, note)


def learn(target: str, fold: int, case: Case, steps: int, runs: Path, progress: Progress) -> Course:
    training = TrainingConfig(
        steps=steps,
        optimizer="adamw",
        learning_rate=1e-3,
        schedule="report",
        ema=0.0,
        clip=None,
        validate_every=max(1, steps // VALIDATIONS),
    )
    folder = runs / case.name
    total = target == TARGETS[0]
    run = folder / f"{target.replace(' ', '-')}-fold-{fold}"
    return Course(target, fold, train_schnet(case, NETWORK, training, run, progress, total_energies=total).history)


def row(course: Course) -> tuple[str, ...]:
    later = course.later()
    losses = KCAL_PER_MOL**2 * np.array([r.validation_loss for r in later])
    worst = later[int(losses.argmax())]
    mae, rmse = worst.errors.energy_mae, worst.errors.energy_rmse
    assert mae is not None
    assert rmse is not None
    part = TrainingConfig().energy_weight * rmse**2 / worst.validation_loss
    values = (losses.min(), losses.max(), losses.mean(), losses.std())
    energy = (f"{part:.1%}", f"{KCAL_PER_MOL * rmse:.1f}", f"{mae / rmse:.3f}")
    return (course.target, str(course.fold), *(f"{v:.3g}" for v in values), *energy)


def draw(courses: Sequence[Course]) -> Figure:
    """Validation losses against the step, a panel for each target."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axes, target in zip(figure.subplots(1, len(TARGETS), sharey=True), TARGETS, strict=True):
        for course in courses:
            if course.target == target:
                axes.plot([r.step for r in course.rows], course.losses, lw=1, label=f"fold {course.fold}")
        axes.set(xlabel="step", yscale="log", title=target)
    figure.axes[0].set_ylabel("validation loss ((kcal/mol/Å)²)")
    figure.axes[0].legend(fontsize=8)
    return figure


if __name__ == "__main__":
    main()
