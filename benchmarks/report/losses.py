"""Training losses against the step, and the power law that they follow while the learning rate is high.

Each RUN is a folder with a metrics.csv, as `schnet-ase train` writes it, or with one in each of its folders fold-*, as
`schnet-ase crossval` does. A line is fitted to the logarithms of loss and step by least squares, from the second
validation on and while the learning rate is at least three quarters of its largest: the first loss averages over the
warm-up, and the fall of a cosine schedule lowers losses faster than any power. The exponent found while it is at least
half of its largest stands beside: of a power law it would be the same.

\b
    cd benchmarks
    python -m report.losses ../runs/rmd17-ethanol --output ../docs/report
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from _report import exit_on_error, publish
from matplotlib.figure import Figure
from scipy.stats import linregress

from schnet_ase.errors import SchNetError
from schnet_ase.geometry.arrays import Floats

FEWEST = 4
"""Points of a fit."""
SHARE, WIDER = 0.75, 0.5
"""Of the largest learning rate, until where losses are fitted."""
HEADER = ("run", "fold", "steps fitted", "points", "exponent", "standard error", "R²", "until half the rate")


class Losses(NamedTuple):
    """Of one training."""

    run: str
    fold: str
    step: Floats
    """(K,) middle of the steps that a training loss is the mean over."""
    rate: Floats
    """(K,) learning rate."""
    training: Floats
    """(K,) (eV/Å)²."""
    validated: Floats
    """(K,) steps at which `validation` is that of the average of the weights."""
    validation: Floats


class PowerLaw(NamedTuple):
    """The fit: loss = exp(intercept) × step^exponent."""

    first: int
    """Index of the first of the points fitted."""
    last: int
    exponent: float
    standard_error: float
    """As if the points scattered independently, which losses of one training do not quite."""
    intercept: float
    r: float


def read_losses(file: Path, run: str, fold: str) -> Losses:
    """A training's losses from its metrics.csv.

    Raises
    ------
    SchNetError
        The file has no such columns.
    """
    rows = np.genfromtxt(file, delimiter=",", names=True, ndmin=1)
    try:
        step, rate, training, validation = (
            rows[name] for name in ("step", "learning_rate", "training_loss", "validation_loss")
        )
    except (ValueError, TypeError, IndexError) as error:
        raise SchNetError(f"{file}: not the metrics of a training; expected step, learning_rate and losses") from error
    return Losses(run, fold, 0.5 * (step + np.append(0.0, step[:-1])), rate, training, step, validation)


def find_losses(run: Path) -> list[Losses]:
    """All trainings of a run."""
    name = run.resolve().name
    if (run / "metrics.csv").is_file():
        return [read_losses(run / "metrics.csv", name, "")]
    files = sorted(run.glob("fold-*/metrics.csv"))
    if not files:
        raise SchNetError(f"{run}: no metrics.csv there or in fold-*; expected the folder of a run")
    return [read_losses(file, name, file.parent.name) for file in files]


def fit(losses: Losses, share: float = SHARE) -> PowerLaw:
    """The power law of a training's losses while the learning rate is at least this share of its largest.

    Raises
    ------
    SchNetError
        Too few points.
    """
    first = int(np.argmax(losses.rate)) + 1
    last = int(np.flatnonzero(losses.rate >= share * losses.rate.max())[-1])
    if last - first + 1 < FEWEST:
        raise SchNetError(
            f"{losses.run} {losses.fold}: {max(0, last - first + 1)} validations while the learning rate is high; "
            f"expected at least {FEWEST}: train longer or lower training.validate_every"
        )
    some = slice(first, last + 1)
    line = linregress(np.log(losses.step[some]), np.log(losses.training[some]))
    return PowerLaw(first, last, line.slope, line.stderr, line.intercept, line.rvalue)


def cells(losses: Losses, law: PowerLaw) -> tuple[str, ...]:
    """A line of the table."""
    return (
        losses.run,
        losses.fold,
        f"{losses.validated[law.first - 1] + 1:,.0f}–{losses.validated[law.last]:,.0f}",
        str(law.last - law.first + 1),
        f"{law.exponent:.3f}",
        f"{law.standard_error:.3f}",
        f"{law.r**2:.3f}",
        f"{fit(losses, WIDER).exponent:.3f}",
    )


def summary(fitted: Sequence[tuple[Losses, PowerLaw]]) -> tuple[str, ...]:
    """The mean over the folds of a run, and the standard error that their spread gives it."""
    exponents = [law.exponent for _, law in fitted]
    error = np.std(exponents, ddof=1) / np.sqrt(len(exponents))
    wider = np.mean([fit(losses, WIDER).exponent for losses, _ in fitted])
    name = f"mean of {len(fitted)}"
    return fitted[0][0].run, name, "", "", f"{np.mean(exponents):.3f}", f"{error:.3f}", "", f"{wider:.3f}"


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Folder for losses.md, .csv and .png.")
@exit_on_error
def main(runs: tuple[Path, ...], output: Path | None) -> None:
    rows: list[tuple[str, ...]] = []
    fitted: list[list[tuple[Losses, PowerLaw]]] = []
    for run in runs:
        fitted.append([(losses, fit(losses)) for losses in find_losses(run)])
        rows += [cells(losses, law) for losses, law in fitted[-1]]
        if len(fitted[-1]) > 1:
            rows.append(summary(fitted[-1]))
    note = (
        "Fitted from the second validation on, while the learning rate is at least three quarters of its largest;\n"
        "last column: at least half. Standard errors of single fits take the points as independent, those of means\n"
        "the folds, whose training frames overlap."
    )
    publish("losses", "Training losses against steps", HEADER, rows, draw(fitted), output, note)


def draw(fitted: Sequence[Sequence[tuple[Losses, PowerLaw]]]) -> Figure:
    """A panel a run: training losses with their lines where they were fitted, and validation losses."""
    figure = Figure(figsize=(0.5 + 4.5 * len(fitted), 4), layout="constrained")
    for axes, trainings in zip(figure.subplots(1, len(fitted), squeeze=False)[0], fitted, strict=True):
        for k, (losses, law) in enumerate(trainings):
            label = f"{losses.fold}: {law.exponent:.2f} ± {law.standard_error:.2f}".removeprefix(": ")
            axes.plot(losses.step, losses.training, ".", ms=4, color=f"C{k}", label=label)
            axes.plot(losses.validated, losses.validation, "-", lw=0.7, color=f"C{k}", alpha=0.5)
            some = losses.step[law.first : law.last + 1]
            axes.plot(some, np.exp(law.intercept) * some**law.exponent, "-", lw=1.2, color="k", zorder=3)
        axes.set(xscale="log", yscale="log", xlabel="step", title=trainings[0][0].run)
        axes.legend(title="dots: training, exponent; lines: validation", fontsize=8, title_fontsize=8)
    figure.axes[0].set_ylabel("loss ((eV/Å)²)")
    return figure


if __name__ == "__main__":
    main()
