"""Table 1 of the report: its small, default and large networks after as many steps, and after as much time.

Each learns DATA from energies and forces with ρ = 0.01 by Adam. The rate has the report's schedule, 10⁻³ times 0.96
every 100,000 steps: as it does not end at zero, a training that is cut short is as good as one that was to be short.
Errors are those of the average weights of the last hundred steps or so, on a fifth of the frames, which nothing is
selected by. The time is all that the quickest training took, validations included; nothing else should run on the
machine. Trainings are kept in --runs, and the same command resumes them.

\b
    cd benchmarks
    python -m report.sizes rmd17_ethanol_train_01.npz --output ../docs/report
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
from _report import exit_on_error, publish
from matplotlib.figure import Figure
from report._fit import FOLDS, Case, cell, names, read_case, train_schnet

from schnet_ase.output.progress import Progress
from schnet_ase.training.config import PRESETS, TrainingConfig
from schnet_ase.training.history import Row
from schnet_ase.uncertainty.metrics import MEV

NETWORKS = ("small", "default", "large")
VALIDATIONS = 50
HEADER = ("network", "parameters", "at equal", "step", "s", "loss ((eV/Å)²)", "energy MAE (meV)", "force MAE (meV/Å)")


class Course(NamedTuple):
    """Of a network's training."""

    name: str
    parameters: int
    history: Sequence[Row]

    @property
    def seconds(self) -> float:
        """In all."""
        return self.history[-1].seconds

    def until(self, seconds: float) -> Row | None:
        """The last validation until then, if there was one."""
        rows = [row for row in self.history if row.seconds <= seconds]
        return rows[-1] if rows else None


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--frames", default=1000, show_default=True, type=click.IntRange(FOLDS), help="At most so many of DATA.")
@click.option("--steps", default=10_000, show_default=True, type=click.IntRange(1), help="Of every training.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("../runs/report"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Folder for sizes.md, .csv and .png.")
@exit_on_error
def main(data: Path, frames: int, steps: int, runs: Path, output: Path | None) -> None:
    case = read_case(names([data])[0], data, 0, frames)
    courses = []
    with Progress(len(NETWORKS) * steps, "sizes") as progress:
        for name in NETWORKS:
            courses.append(learn(name, case, steps, runs, progress))
            progress.print(f"{name}: {courses[-1].seconds:.0f} s")
    publish("sizes", "Networks of three sizes", HEADER, rows(courses), draw(courses), output)


def learn(name: str, case: Case, steps: int, runs: Path, progress: Progress) -> Course:
    training = TrainingConfig(
        steps=steps,
        optimizer="adamw",
        learning_rate=1e-3,
        schedule="report",
        force_weight=1.0 if case.has_forces else 0.0,
        ema=0.99,
        validate_every=max(1, steps // VALIDATIONS),
        compile=False,  # which takes time of its own
    )
    result = train_schnet(case, PRESETS[name](), training, runs / case.name / name, progress)
    return Course(name, sum(p.numel() for p in result.model.parameters()), result.history)


def rows(courses: Sequence[Course]) -> list[tuple[str, ...]]:
    """Of the table: all at their last step, then all at the time of the quickest."""
    seconds = min(course.seconds for course in courses)
    return [
        *(row(course, "steps", course.history[-1]) for course in courses),
        *(row(course, "time", course.until(seconds)) for course in courses),
    ]


def row(course: Course, equal: str, at: Row | None) -> tuple[str, ...]:
    head = (course.name, str(course.parameters), equal)
    if at is None:
        return (*head, *("–" for _ in HEADER[len(head) :]))
    e, f = at.errors.energy_mae, at.errors.force_mae
    loss = f"{at.validation_loss:.3g}"
    return (*head, str(at.step), f"{at.seconds:.1f}", loss, cell(e, MEV, 1), cell(f, MEV, 1))


def draw(courses: Sequence[Course]) -> Figure:
    """Validation loss against the step and against time."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for course in courses:
        losses = [row.validation_loss for row in course.history]
        label = f"{course.name}, {course.parameters:,} parameters"
        left.plot([row.step for row in course.history], losses, label=label)
        right.plot([row.seconds for row in course.history], losses)
    right.axvline(min(course.seconds for course in courses), color="0.5", ls="--", lw=1)
    left.set(xlabel="step", ylabel="validation loss ((eV/Å)²)", yscale="log")
    right.set(xlabel="time (s)", xscale="log")
    figure.legend(loc="outside upper center", ncols=len(courses))
    return figure


if __name__ == "__main__":
    main()
