"""Tables 2 and 6 of the report: SchNet against a baseline of 1,160 parameters that knows elements and positions alone.

Both learn the same frames of each DATA in as many steps, from energies, from forces, and from both with ρ = 0.01, less
the same reference energies; the weights of the best validation are judged by frames kept apart. Data without forces are
learned from energies alone. Trainings are kept in --runs, and the same command resumes them.

\b
    cd benchmarks
    python -m report.baseline rmd17_*_train_01.npz $(printf -- '--test %s ' rmd17_*_test_01.npz) \\
        --output ../docs/report
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from _report import exit_on_error, publish
from _start import NETWORK
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from report._baseline import Baseline, evaluate_baseline, train_baseline
from report._fit import (
    BOTH,
    ENERGIES,
    FORCES,
    SEED,
    Case,
    Target,
    cell,
    data_options,
    evaluate_schnet,
    read_cases,
    train_schnet,
    training_for,
)
from scipy.spatial.transform import Rotation

from schnet_ase import SchNet
from schnet_ase.data import Frame
from schnet_ase.data.batches import Batch, make_examples
from schnet_ase.errors import TrainingError
from schnet_ase.evaluation.evaluate import Evaluation, evaluate
from schnet_ase.output.files import atomic_write
from schnet_ase.output.progress import Progress
from schnet_ase.training.normalization import fit_normalization
from schnet_ase.training.state import differences
from schnet_ase.uncertainty.metrics import MEV, Errors

NOTE = """\
Mean absolute errors after {steps:,} steps, energies in meV, force components in meV/Å, on frames that neither network
was trained on or selected by. "Turned": the same frames, each turned at random, which leaves SchNet's energies as they
are and turns its forces alike. Learning from forces leaves the energy's constant open; it is taken from the validation
frames."""


class Outcome(NamedTuple):
    """Errors on the frames for tests."""

    case: str
    target: str
    baseline: Errors
    turned: Errors
    """The baseline's, of the same frames turned."""
    schnet: Errors


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@data_options
@click.option("--steps", default=2000, show_default=True, type=click.IntRange(1), help="Of every training.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("../runs/report"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Folder for baseline.md, .csv and .png.")
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
    tasks = [(case, target) for case in read_cases(data, test, frames, held_out) for target in targets(case)]
    outcomes = []
    with Progress(2 * len(tasks) * steps, "baseline") as progress:
        for case, target in tasks:
            outcomes.append(compare(case, target, steps, runs, progress))
            progress.print(" ".join(row(outcomes[-1])))
    publish(
        "baseline",
        "SchNet and the report's baseline",
        HEADER,
        [row(o) for o in outcomes],
        draw(outcomes),
        output,
        NOTE.format(steps=steps),
    )


def targets(case: Case) -> tuple[Target, ...]:
    return (ENERGIES, FORCES, BOTH) if case.has_forces else (ENERGIES,)


def compare(case: Case, target: Target, steps: int, runs: Path, progress: Progress) -> Outcome:
    folder = runs / case.name
    file = folder / f"baseline-{target.name}-{Path(case.test.source).stem}.json"
    baseline, turned = run_baseline(case, target, steps, file, progress)
    trained = train_schnet(case, NETWORK, training_for(steps, target), folder / target.name, progress)
    validation = evaluate(trained.model, examples_of(case.dataset.frames, case.split.validation))
    schnet = errors(target, evaluate_schnet(trained.model, case.test), validation)
    return Outcome(case.name, target.name, baseline, turned, schnet)


def run_baseline(case: Case, target: Target, steps: int, file: Path, progress: Progress) -> tuple[Errors, Errors]:
    """Errors of the baseline on the frames for tests as they are and turned, kept in a file."""
    training = training_for(steps, target)
    identity = {
        "training": asdict(training),
        "data_sha256": case.dataset.sha256,
        "training_frames": case.split.training.tolist(),
        "validation_frames": case.split.validation.tolist(),
        "test_sha256": case.test.sha256,
    }
    if file.is_file():
        kept = json.loads(file.read_text())
        if changed := differences(kept["identity"], identity):
            raise TrainingError(f"{file}: holds a training with other {', '.join(changed)}; give another --runs")
        progress.update(steps)
        return Errors(**kept["errors"]), Errors(**kept["turned"])
    normalized = SchNet(NETWORK)
    fit_normalization(normalized, [case.dataset.frames[i] for i in case.split.training])
    torch.manual_seed(SEED)
    model = Baseline(normalized)
    training_examples, validation_examples = (examples_of(case.dataset.frames, part) for part in case.split)
    train_baseline(model, training_examples, validation_examples, training, SEED, progress.update)
    validation = evaluate_baseline(model, validation_examples)
    found = [
        errors(target, evaluate_baseline(model, examples_of(frames, range(len(frames)))), validation)
        for frames in (case.test.frames, randomly_turned(case.test.frames))
    ]
    atomic_write(file, json.dumps({"identity": identity, "errors": asdict(found[0]), "turned": asdict(found[1])}))
    return found[0], found[1]


def examples_of(frames: Sequence[Frame], indices: Iterable[int]) -> Sequence[Batch]:
    return make_examples(frames, list(indices), NETWORK.pair_cutoff)


def randomly_turned(frames: Sequence[Frame]) -> list[Frame]:
    """Each turned about its centre, all directions alike."""
    matrices = Rotation.random(len(frames), np.random.default_rng(SEED)).as_matrix()
    return [_turned(frame, matrix) for frame, matrix in zip(frames, matrices, strict=True)]


def _turned(frame: Frame, matrix: np.ndarray) -> Frame:
    geometry = frame.geometry
    centre = geometry.positions.mean(axis=0)
    positions = (geometry.positions - centre) @ matrix.T + centre
    geometry = geometry._replace(positions=positions, cell=geometry.cell @ matrix.T)
    return Frame(geometry, frame.energy, None if frame.forces is None else frame.forces @ matrix.T)


def errors(target: Target, test: Evaluation, validation: Evaluation) -> Errors:
    """Errors of a test; see `NOTE` for the energy's constant."""
    if not target.energy_weight:
        assert validation.reference_energy is not None
        test = test._replace(energy=test.energy - (validation.energy - validation.reference_energy).mean())
    return test.errors()


HEADER = (
    "data",
    "learned from",
    *("energy: baseline", "turned", "SchNet", "ratio"),
    *("forces: baseline", "turned", "SchNet", "ratio"),
)


def row(o: Outcome) -> tuple[str, ...]:
    def cells(baseline: float | None, turned: float | None, schnet: float | None) -> tuple[str, ...]:
        if baseline is None or turned is None or schnet is None:
            return ("–",) * 4
        return (*(cell(e, MEV, 1) for e in (baseline, turned, schnet)), cell(baseline / schnet, 1.0, 1))

    energy = cells(o.baseline.energy_mae, o.turned.energy_mae, o.schnet.energy_mae)
    forces = cells(o.baseline.force_mae, o.turned.force_mae, o.schnet.force_mae)
    return (o.case, o.target, *energy, *forces)


SERIES: tuple[tuple[str, str, str, Callable[[Outcome], Errors]], ...] = (
    ("baseline", "s", "tab:orange", lambda o: o.baseline),
    ("baseline, frames turned", "x", "tab:orange", lambda o: o.turned),
    ("SchNet", "o", "tab:blue", lambda o: o.schnet),
)
QUANTITIES: tuple[tuple[str, Callable[[Errors], float | None]], ...] = (
    ("energy MAE (meV)", lambda e: e.energy_mae),
    ("force MAE (meV/Å)", lambda e: e.force_mae),
)


def draw(outcomes: Sequence[Outcome]) -> Figure:
    """Errors of every data set: a column for what was learned from, energies above and forces below."""
    columns = list(dict.fromkeys(o.target for o in outcomes))
    cases = list(dict.fromkeys(o.case for o in outcomes))
    quantities = [q for q in QUANTITIES if any(q[1](o.schnet) is not None for o in outcomes)]
    size = (1.5 + 2.8 * len(columns), 0.6 + len(quantities) * (0.9 + 0.25 * len(cases)))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(quantities), len(columns), sharex="row", sharey=True, squeeze=False)
    for (label, of), line in zip(quantities, panels, strict=True):
        for target, axes in zip(columns, line, strict=True):
            there = [o for o in outcomes if o.target == target and of(o.schnet) is not None]
            for name, mark, color, side in SERIES:
                values = [MEV * (of(side(o)) or 0.0) for o in there]
                axes.plot(values, [cases.index(o.case) for o in there], mark, color=color, mfc="none", label=name)
            axes.set(xlabel=label, xscale="log", title=f"learned from {target}")
            axes.xaxis.set_major_formatter(LogFormatter())
            axes.xaxis.set_minor_formatter(LogFormatter())
            axes.grid(axis="x", color="0.9")
            axes.set_axisbelow(True)
    panels[0, 0].set_yticks(range(len(cases)), cases)
    panels[0, 0].set_ylim(len(cases) - 0.5, -0.5)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(SERIES))
    return figure


if __name__ == "__main__":
    main()
