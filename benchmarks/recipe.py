"""Recipe search: changes to an initial recipe, judged on two molecules.

Each DATA has labelled frames of a molecule. A variation is trained on the first of five folds of each and judged by the
validation frames of that fold; no test frame is read. Trainings are kept, and the same command resumes. The time is
that of a dynamics step with the network on one thread, with all architectures in turns. A variation is on the Pareto
front if no other is better without being slower; its error is the geometric mean over the molecules. With a preset, the
changes apply to that network, which is trained in the same way.

\b
    python benchmarks/recipe.py rmd17_aspirin_train_01.npz rmd17_malonaldehyde_train_01.npz --output docs
    python benchmarks/recipe.py rmd17_aspirin_train_01.npz rmd17_malonaldehyde_train_01.npz --steps 10000 \
        --only recipe --only 'SiLU, rate 3e-3' --output docs
    python benchmarks/recipe.py rmd17_ethanol_train_01.npz --preset default --only recipe --only SiLU --output docs
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from _report import exit_on_error, publish
from _start import NETWORK, TRAINING
from ase import Atoms
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from schnet_ase.data import read_dataset, split_folds
from schnet_ase.errors import SchNetError
from schnet_ase.networks import SchNetConfig
from schnet_ase.output.progress import Progress
from schnet_ase.stability.times import milliseconds_per_step
from schnet_ase.training.config import PRESETS, DataConfig, RunConfig
from schnet_ase.training.single import train
from schnet_ase.training.state import TrainingResult
from schnet_ase.uncertainty.metrics import MEV

FOLDS, CALIBRATION, SEED = 5, 50, 0
"""Split of the shipped ensembles, as `crossval` makes it."""
STEPS = 2000


class Variation(NamedTuple):
    """Change to the recipe."""

    name: str
    model: dict[str, Any] = {}  # noqa: RUF012 - never written to
    training: dict[str, Any] = {}  # noqa: RUF012
    seed: int = SEED


GAUSSIAN: dict[str, Any] = {"radial": "gaussian", "gamma": None}
EXPONENTIAL: dict[str, Any] = {"radial": "exponential", "gamma": None}
WIDE: dict[str, Any] = {**GAUSSIAN, "n_rbf": 20, "cutoff": 6.0}
ADAMW: dict[str, Any] = {"optimizer": "adamw"}
VARIATIONS = (
    Variation("recipe"),
    Variation("seed 1", seed=1),
    Variation("seed 2", seed=2),
    Variation("2 interactions", {"n_interactions": 2}),
    Variation("3 interactions", {"n_interactions": 3}),
    Variation("4 interactions", {"n_interactions": 4}),
    Variation("8 interactions", {"n_interactions": 8}),
    Variation("32 features", {"n_features": 32}),
    Variation("128 features", {"n_features": 128}),
    Variation("3 × 128", {"n_interactions": 3, "n_features": 128}),
    Variation("4 Å", {"cutoff": 4.0}),
    Variation("6 Å", {"cutoff": 6.0}),
    Variation("cosine envelope", {"envelope": "cosine"}),
    Variation("10 exponential", {**EXPONENTIAL, "n_rbf": 10}),
    Variation("32 exponential", {**EXPONENTIAL, "n_rbf": 32}),
    Variation("16 Gaussians", {**GAUSSIAN, "n_rbf": 16}),
    Variation("32 Gaussians", {**GAUSSIAN, "n_rbf": 32}),
    Variation("20 Gaussians, 6 Å", WIDE),
    Variation("SiLU", {"activation": "silu"}),
    Variation("SiLU, rate 3e-3", {"activation": "silu"}, {"learning_rate": 3e-3}),
    Variation("20 Gaussians, 6 Å, rate 3e-3", WIDE, {"learning_rate": 3e-3}),
    Variation("20 Gaussians, 6 Å, SiLU, rate 3e-3", {**WIDE, "activation": "silu"}, {"learning_rate": 3e-3}),
    Variation(
        "20 Gaussians, 6 Å, SiLU, rate 3e-3, no clipping",
        {**WIDE, "activation": "silu"},
        {"learning_rate": 3e-3, "clip": None},
    ),
    Variation("GELU", {"activation": "gelu"}),
    Variation("tanh", {"activation": "tanh"}),
    Variation("RMS normalization", {"norm": "rms"}),
    Variation("layer normalization", {"norm": "layer"}),
    Variation("dropout 0.05", {"dropout": 0.05}),
    Variation("ρ = 0.001", training={"energy_weight": 0.001}),
    Variation("ρ = 0.1", training={"energy_weight": 0.1}),
    Variation("batch 5", training={"batch_size": 5}),
    Variation("batch 20", training={"batch_size": 20}),
    Variation("AdamW, rate 3e-3", training={**ADAMW, "learning_rate": 3e-3}),
    Variation("AdamW, rate 1e-3", training={**ADAMW, "learning_rate": 1e-3}),
    Variation("rate 3e-3", training={"learning_rate": 3e-3}),
    Variation("rate 5e-3", training={"learning_rate": 5e-3}),
    Variation("rate 2e-2", training={"learning_rate": 2e-2}),
    Variation("constant rate 1e-3", training={"schedule": "report", "learning_rate": 1e-3}),
    Variation("no average", training={"ema": 0.0}),
    Variation("average 0.999", training={"ema": 0.999}),
    Variation("no clipping", training={"clip": None}),
    Variation("weight decay 0.01", training={"weight_decay": 0.01}),
    Variation("weight decay 0.1", training={"weight_decay": 0.1}),
)
HEADER = ("variation", "parameters", "force MAE (meV/Å)", "energy MAE (meV)", "mean", "ms/MD step", "minutes", "front")


class Outcome(NamedTuple):
    """Result of a variation."""

    name: str
    parameters: int
    energy: list[float]
    """Energy MAE of each molecule, meV."""
    forces: list[float]
    """Force MAE of each molecule, meV/Å."""
    minutes: list[float]
    """Duration of each training."""
    milliseconds: list[float]
    """Time per step of dynamics."""

    @property
    def error(self) -> float:
        return float(np.exp(np.mean(np.log(self.forces))))

    @property
    def time(self) -> float:
        return float(np.exp(np.mean(np.log(self.milliseconds))))


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--steps", default=STEPS, show_default=True, type=click.IntRange(1), help="Steps of every training.")
@click.option("--preset", type=click.Choice(list(PRESETS)), help="Preset of the network.  [default: the recipe's own]")
@click.option("--only", multiple=True, help="Name of a variation; may be given several times.  [default: all]")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/recipe"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Folder for recipe.md, .csv and .png.")
@exit_on_error
def main(
    data: tuple[Path, ...], steps: int, preset: str | None, only: tuple[str, ...], runs: Path, output: Path | None
) -> None:
    names = [variation.name for variation in VARIATIONS]
    if unknown := set(only).difference(names):
        raise SchNetError(f"no variation {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    chosen = [v for v in VARIATIONS if not only or v.name in only]
    results: list[list[TrainingResult]] = []
    with Progress(len(chosen) * len(data) * steps, "recipe") as progress:
        for variation in chosen:
            results.append([run_one(variation, preset, file, steps, runs, progress) for file in data])
            errors = ", ".join(f"{MEV * r.best.errors.force_mae:.2f}" for r in results[-1])
            progress.print(f"{variation.name}: force MAE {errors} meV/Å")
    outcomes = measured(chosen, results, [molecule_of(file) for file in data])
    base = "the recipe that the search started from"
    if preset:
        base = f"the preset `{preset}`, trained by {base}"
    files = " / ".join(file.stem for file in data)
    note = (
        f"Changes to {base}, {steps:,} steps each; validation frames of one\n"
        f"fold of {files}. The mean of the errors is geometric; on the front is what nothing\n"
        "is better than and no slower. Differences smaller than those between seeds mean nothing."
    )
    publish(page_name(preset, steps), "Which recipe", HEADER, cells(outcomes), draw(outcomes), output, note)


def page_name(preset: str | None, steps: int) -> str:
    return "-".join(["recipe", *([preset] if preset else []), *([str(steps)] if steps != STEPS else [])])


def configuration(variation: Variation, preset: str | None, file: Path, steps: int) -> RunConfig:
    """Return the recipe with a change, validated as if it came from a TOML file."""
    return RunConfig(
        name="recipe",
        data=DataConfig(file=str(file), calibration=CALIBRATION),
        model=SchNetConfig(**{**(PRESETS[preset]() if preset else NETWORK).to_dict(), **variation.model}),
        training=replace(TRAINING, steps=steps, **variation.training),
        folds=FOLDS,
        seed=variation.seed,
    )


def run_one(
    variation: Variation, preset: str | None, file: Path, steps: int, runs: Path, progress: Progress
) -> TrainingResult:
    dataset = read_dataset(file)
    split = split_folds(len(dataset.frames), FOLDS, CALIBRATION, SEED).folds[0]
    folder = runs / (preset or "recipe") / str(steps) / file.stem / variation.name.replace(" ", "-")
    before = progress.done

    def report(step: int, row: object) -> None:
        progress.update(before + step - progress.done)

    return train(configuration(variation, preset, file, steps), dataset, split, folder, report=report)


def molecule_of(file: Path) -> Atoms:
    geometry = read_dataset(file).frames[0].geometry
    return Atoms(geometry.numbers, geometry.positions)


def measured(
    variations: Sequence[Variation], results: Sequence[Sequence[TrainingResult]], molecules: Sequence[Atoms]
) -> list[Outcome]:
    # Weights do not change the time, so each architecture is measured once; otherwise noise would rank its variations.
    first = {trained[0].model.config: v for v, trained in reversed(list(enumerate(results)))}
    times = [
        milliseconds_per_step(atoms, [results[v][k].path for v in first.values()]) for k, atoms in enumerate(molecules)
    ]
    column = {config: n for n, config in enumerate(first)}
    outcomes = []
    for variation, trained in zip(variations, results, strict=True):
        errors = [(r.best.errors.energy_mae, r.best.errors.force_mae) for r in trained]
        outcomes.append(
            Outcome(
                variation.name,
                sum(p.numel() for p in trained[0].model.parameters()),
                [MEV * energy for energy, _ in errors if energy is not None],
                [MEV * force for _, force in errors if force is not None],
                [r.history[-1].seconds / 60.0 for r in trained],
                [of_molecule[column[trained[0].model.config]] for of_molecule in times],
            )
        )
    return outcomes


def on_front(outcome: Outcome, outcomes: Sequence[Outcome]) -> bool:
    return not any(o.error < outcome.error and o.time <= outcome.time for o in outcomes)


def cells(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """Return the rows of the table, the best first."""

    def each(values: Sequence[float], digits: int) -> str:
        return " / ".join(f"{value:.{digits}f}" for value in values)

    return [
        (
            o.name,
            f"{o.parameters:,}",
            each(o.forces, 2),
            each(o.energy, 2),
            f"{o.error:.2f}",
            each(o.milliseconds, 3),
            each(o.minutes, 1),
            "yes" if on_front(o, outcomes) else "",
        )
        for o in sorted(outcomes, key=lambda o: o.error)
    ]


def draw(outcomes: Sequence[Outcome]) -> Figure:
    """Plot the error against the time per step of dynamics, naming the variations on the front."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([o.time for o in outcomes], [o.error for o in outcomes], "o", color="0.6", ms=4)
    front = sorted((o.time, o.error, o.name) for o in outcomes if on_front(o, outcomes))
    axes.step(
        [time for time, *_ in front], [error for _, error, _ in front], "o-", where="post", color="tab:blue", lw=1
    )
    for time, error, name in front:
        axes.annotate(name, (time, error), fontsize=7, xytext=(4, 2), textcoords="offset points")
    axes.set(xlabel="time per MD step (ms)", ylabel="validation force MAE (meV/Å)", xscale="log", yscale="log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(ScalarFormatter())  # the range is too small for powers of ten
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.margins(x=0.2)
    return figure


if __name__ == "__main__":
    main()
