"""Section 3.1 of the report: how much total energies vary, and what it does to learn them less reference energies.

The report gave the small coefficient of variation of the energies (standard deviation over mean) as the reason why it
learned them badly. Here one network learns each DATA twice from the same weights: as in the report, where its output in
kcal/mol is the total energy, and less the reference energies, as the package trains. Frames kept apart judge both.
Trainings are kept in --runs, and the same command resumes them; those less the reference energies are the ones of
report.baseline, if that has run with as many steps.

\b
    cd benchmarks
    python -m report.references rmd17_*_train_01.npz $(printf -- '--test %s ' rmd17_*_test_01.npz) \\
        --output ../docs/report
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from _report import exit_on_error, publish
from _start import NETWORK
from matplotlib.figure import Figure
from report._fit import (
    BOTH,
    ENERGIES,
    Case,
    cell,
    data_options,
    evaluate_schnet,
    read_cases,
    train_schnet,
    training_for,
)

from schnet_ase.geometry.arrays import Floats
from schnet_ase.output.progress import Progress
from schnet_ase.uncertainty.metrics import KCAL_PER_MOL, Errors

NOTE = """\
Total energies of all frames: mean, standard deviation (sd), the coefficient of variation that is the latter over the
former, and the standard deviation of what is left less the reference energies. Then mean absolute errors after
{steps:,} steps on frames kept apart. Energies in kcal/mol, forces in kcal/mol/Å."""
HEADER = (
    "data",
    *("mean", "sd", "coefficient of variation", "sd less references"),
    *("energy MAE: total", "less references"),
    *("force MAE: total", "less references"),
)


class Outcome(NamedTuple):
    """Of a data set."""

    case: str
    energies: Floats
    """eV, of all frames."""
    references: Floats
    """eV, of each frame the sum over its atoms."""
    total: Errors
    """Where total energies are learned."""
    less: Errors
    """Where they are less the references."""


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@data_options
@click.option("--steps", default=2000, show_default=True, type=click.IntRange(1), help="Of every training.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("../runs/report"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Folder for references.md, .csv and .png.")
@exit_on_error
def main(
    data: tuple[Path, ...],
    test: tuple[Path, ...],
    frames: int,
    held_out: int,
    steps: int,
    runs: Path,
    output: Path | None,
) -> None:
    cases = read_cases(data, test, frames, held_out)
    outcomes = []
    with Progress(2 * len(cases) * steps, "references") as progress:
        for case in cases:
            outcomes.append(compare(case, steps, runs, progress))
            progress.print(" ".join(row(outcomes[-1])))
    publish(
        "references",
        "Total energies, and energies less references",
        HEADER,
        [row(o) for o in outcomes],
        draw(outcomes),
        output,
        NOTE.format(steps=steps),
    )


def compare(case: Case, steps: int, runs: Path, progress: Progress) -> Outcome:
    target = BOTH if case.has_forces else ENERGIES
    training, folder = training_for(steps, target), runs / case.name
    total = train_schnet(case, NETWORK, training, folder / f"total-{target.name}", progress, total_energies=True).model
    less = train_schnet(case, NETWORK, training, folder / target.name, progress).model
    energies, references = [], []
    for frame in case.dataset.frames:
        assert frame.energy is not None
        energies.append(frame.energy)
        references.append(less.reference[torch.from_numpy(frame.geometry.numbers)].sum().item())
    errors = (evaluate_schnet(model, case.test).errors() for model in (total, less))
    return Outcome(case.name, np.array(energies), np.array(references), *errors)


def row(o: Outcome) -> tuple[str, ...]:
    mean, sd = o.energies.mean(), o.energies.std()
    left = (o.energies - o.references).std()
    return (
        o.case,
        cell(mean, KCAL_PER_MOL, 1),
        cell(sd, KCAL_PER_MOL, 2),
        f"{sd / abs(mean):.2e}",
        cell(left, KCAL_PER_MOL, 2),
        *(cell(e.energy_mae, KCAL_PER_MOL, 2) for e in (o.total, o.less)),
        *(cell(e.force_mae, KCAL_PER_MOL, 2) for e in (o.total, o.less)),
    )


def draw(outcomes: Sequence[Outcome]) -> Figure:
    """Energy errors both ways, and how much the energies vary."""
    figure = Figure(figsize=(7, 1.2 + 0.3 * len(outcomes)), layout="constrained")
    axes = figure.subplots()
    places = range(len(outcomes))
    for values, mark, label in (
        ([o.total.energy_mae for o in outcomes], "s", "total energies learned"),
        ([o.less.energy_mae for o in outcomes], "o", "less reference energies"),
        ([(o.energies - o.references).std() for o in outcomes], "|", "standard deviation less reference energies"),
    ):
        axes.plot([KCAL_PER_MOL * value for value in values if value is not None], places, mark, label=label)
    axes.set(xlabel="energy MAE (kcal/mol)", xscale="log", ylim=(len(outcomes) - 0.5, -0.5))
    axes.set_yticks(places, [o.case for o in outcomes])
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
