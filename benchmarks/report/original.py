"""Table 7 of the report on the labels that it had: networks trained on the original MD17's, beside the report's errors.

The files of rMD17 hold the labels of the original MD17 for the same frames. For each MOLECULE the file of its shipped
entry, examples/rmd17-MOLECULE.toml, trains one network with those labels, on the first of the entry's folds, and the
test frames judge it. Beside it stand the report's errors, of ten and fifty thousand frames of MD17, and what one member
of the shipped entry errs on the labels of rMD17. Trainings are kept in --runs, and the same command resumes them.

\b
    cd benchmarks
    python -m report.original aspirin ethanol toluene --output ../docs/report
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import click
from _report import exit_on_error, publish
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from report._fit import cell, evaluate_schnet
from report.authors import MEV_PER_KCAL, MOLECULES, PUBLISHED, Ours, of, ours

from schnet_ase.errors import SchNetError
from schnet_ase.output.progress import Progress
from schnet_ase.registry.lookup import find_card
from schnet_ase.training.config import load_config
from schnet_ase.training.run import load_frames
from schnet_ase.training.single import train
from schnet_ase.training.subsets import load_test, split_for_crossval
from schnet_ase.uncertainty.metrics import KCAL_PER_MOL, Errors

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
REPORT = PUBLISHED[:2]
NOTE = """\
One network each, trained on the original MD17's labels of {frames} frames of rMD17's first split and selected on
{validation} others; mean absolute errors on {test:,} test frames with the same kind of labels. "rMD17" is the mean over
the members of the shipped entry, each trained on as many frames, with the labels of rMD17. Energies in kcal/mol, forces
in kcal/mol/Å."""
HEADER = (
    "molecule",
    "energy MAE",
    "energy MAE, rMD17",
    "force MAE",
    "force MAE, rMD17",
    *(method.method for method in REPORT),
    "force MAE / the last",
    "minutes",
)


class Outcome(NamedTuple):
    """Of a molecule."""

    molecule: str
    frames: tuple[int, int, int]
    """For training, validation and tests."""
    errors: Errors
    """On the labels of MD17."""
    entry: Ours
    """Errors of the shipped entry, on those of rMD17."""
    seconds: float


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("molecules", nargs=-1, required=True, type=click.Choice(MOLECULES), metavar="MOLECULE...")
@click.option("--data-root", type=click.Path(path_type=Path), default=Path(), show_default=True, help="Of the files.")
@click.option("--steps", type=click.IntRange(1), help="Of every training; unset: the entry's.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("../runs/report"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Folder for original.md, .csv and .png.")
@exit_on_error
def main(molecules: tuple[str, ...], data_root: Path, steps: int | None, runs: Path, output: Path | None) -> None:
    outcomes = [learn(molecule, data_root, steps, runs) for molecule in molecules]
    training, validation, test = outcomes[0].frames
    note = NOTE.format(frames=training, validation=validation, test=test)
    title = "Learned from the labels of the original MD17"
    publish("original", title, HEADER, [row(o) for o in outcomes], draw(outcomes), output, note)


def learn(molecule: str, data_root: Path, steps: int | None, runs: Path) -> Outcome:
    """Train the first fold of a molecule's entry with the labels of MD17, or go on."""
    card = find_card(f"rmd17-{molecule}")
    if card is None:
        raise SchNetError(f"rmd17-{molecule} is not installed; see schnet-ase models")
    config = load_config(EXAMPLES / f"rmd17-{molecule}.toml", data_root)
    labels = replace(config.data, energy_key="old_energies", forces_key="old_forces")
    training = config.training if steps is None else replace(config.training, steps=steps)
    config = replace(config, data=labels, training=training)
    dataset = load_frames(labels.file, config)
    test = load_test(config, dataset)
    assert test is not None
    split = split_for_crossval(config, dataset).folds[0]
    with Progress(training.steps, molecule) as progress:
        folder = runs / f"original-{molecule}"
        result = train(config, dataset, split, folder, report=lambda step, _: progress.update(step - progress.done))
    errors = evaluate_schnet(result.model, test).errors()
    frames = len(split.training), len(split.validation), len(test.frames)
    return Outcome(molecule, frames, errors, ours(molecule, card), result.history[-1].seconds)


def row(o: Outcome) -> tuple[str, ...]:
    reports = [of(method, o.molecule) for method in REPORT]
    assert o.errors.force_mae is not None
    ratio = "–" if reports[-1] is None else f"{KCAL_PER_MOL * o.errors.force_mae * MEV_PER_KCAL / reports[-1]:.2f}"
    return (
        o.molecule,
        cell(o.errors.energy_mae, KCAL_PER_MOL, 3),
        cell(o.entry.member_energy, 1.0 / MEV_PER_KCAL, 3),
        cell(o.errors.force_mae, KCAL_PER_MOL, 3),
        cell(o.entry.member_forces, 1.0 / MEV_PER_KCAL, 3),
        *(cell(value, 1.0 / MEV_PER_KCAL, 2) for value in reports),
        ratio,
        f"{o.seconds / 60.0:.0f}",
    )


def draw(outcomes: list[Outcome]) -> Figure:
    """Force errors of each molecule, ours on both labels and the report's."""
    figure = Figure(figsize=(7, 1.6 + 0.5 * len(outcomes)), layout="constrained")
    axes = figure.subplots()
    places = range(len(outcomes))
    for method, marker in zip(REPORT, "v^", strict=True):
        values = [of(method, o.molecule) for o in outcomes]
        axes.plot([v and v / MEV_PER_KCAL for v in values], places, marker, mfc="none", label=method.method)
    axes.plot([KCAL_PER_MOL * (o.errors.force_mae or 0.0) for o in outcomes], places, "k*", ms=11, label="one network")
    axes.plot([o.entry.member_forces / MEV_PER_KCAL for o in outcomes], places, "k|", ms=14, label="the same, rMD17")
    axes.set(xscale="log", xlabel="force MAE (kcal/mol/Å)", ylim=(len(outcomes) - 0.5, -0.5))
    axes.set_yticks(places, [o.molecule for o in outcomes])
    axes.set_xticks((0.2, 0.5, 1.0, 2.0, 5.0), ("0.2", "0.5", "1", "2", "5"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside upper center", ncols=2, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
