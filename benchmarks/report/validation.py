"""Table 3 of the report, from a cross-validation: validation losses of its folds.

RUN is the folder that `schnet-ase crossval` leaves. As in the report stand the smallest, largest and mean loss of each
fold and their standard deviation, over its validations after the first tenth of the steps. Why the report's folds
differed by factors is for `report.folds`.

\b
    cd benchmarks
    python -m report.validation ../runs/iso17-xtb --output ../docs/report
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from _report import exit_on_error, publish
from matplotlib.figure import Figure
from report.losses import Losses, find_losses

from schnet_ase.geometry.arrays import Floats
from schnet_ase.uncertainty.metrics import KCAL_PER_MOL

HEADER = ("fold", "validations", "minimum", "maximum", "mean", "standard deviation")
NOTE = """\
Validation losses of `{run}` after the first tenth of its {steps:,.0f} steps, (kcal/mol/Å)². The means of the folds are
within a factor of {ratio:.3f} of each other."""


def later(losses: Losses) -> Floats:
    """Validation losses after the first tenth of the steps, (kcal/mol/Å)²."""
    return KCAL_PER_MOL**2 * losses.validation[losses.validated > losses.validated[-1] / 10]


def row(losses: Losses) -> tuple[str, ...]:
    values = later(losses)
    numbers = (values.min(), values.max(), values.mean(), values.std())
    return (losses.fold, str(len(values)), *(f"{number:.3g}" for number in numbers))


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Folder for validation.md, .csv and .png.")
@exit_on_error
def main(run: Path, output: Path | None) -> None:
    folds = find_losses(run)
    means = [later(losses).mean() for losses in folds]
    note = NOTE.format(run=folds[0].run, steps=folds[0].validated[-1], ratio=np.max(means) / np.min(means))
    publish(
        "validation",
        "Validation losses of the folds",
        HEADER,
        [row(losses) for losses in folds],
        draw(folds),
        output,
        note,
    )


def draw(folds: Sequence[Losses]) -> Figure:
    """Validation losses against the step."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for losses in folds:
        axes.plot(losses.validated, KCAL_PER_MOL**2 * losses.validation, ".-", label=losses.fold)
    axes.set(xlabel="step", ylabel="validation loss ((kcal/mol/Å)²)", yscale="log", title=folds[0].run)
    axes.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    main()
