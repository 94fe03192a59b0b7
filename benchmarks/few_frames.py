"""What a start is worth to molecules that it has not seen: force errors against the number of labelled frames.

From each file, frames are drawn at random: as many as a row says, a fifth of them for validation, and up to 500 that no
row has for tests. One network is trained from the first member of START, and one from random weights, with the same
shape and as many steps; energies are refitted to the zero of the file.

    python benchmarks/few_frames.py organic data/rmd17/rmd17_aspirin_train_01.npz data/acac/train_300K.xyz --output docs
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from _report import exit_on_error, publish
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from schnet_ase.data import Dataset, TrainingSplit, read_dataset
from schnet_ase.errors import SchNetError
from schnet_ase.evaluation.evaluate import evaluate_dataset
from schnet_ase.output.progress import Progress
from schnet_ase.registry.loading import Loaded, locate_members
from schnet_ase.training import DataConfig, RunConfig, TrainingConfig, train
from schnet_ase.training.normalization import is_isolated_atom
from schnet_ase.uncertainty.metrics import MEV

TESTED = 500
HEADER = ("folder, molecule", "frames", "from the start (meV/Å)", "from random weights (meV/Å)", "test frames")


class Point(NamedTuple):
    """Force MAE of two networks, eV/Å."""

    molecule: str
    """Folder of its file and formula."""
    frames: int
    started: float
    random: float
    tested: int
    """Number of test frames."""


def point(start: Loaded, name: str, dataset: Dataset, frames: int, most: int, steps: int) -> Point:
    """Train twice on `frames` frames and test on others, which are the same for all numbers up to `most`."""
    usable = np.flatnonzero([not is_isolated_atom(frame) for frame in dataset.frames])
    order = np.random.default_rng(0).permutation(usable)
    test = dataset._replace(frames=[dataset.frames[i] for i in order[most : most + TESTED]])
    if len(test.frames) < 2:
        raise SchNetError(f"{dataset.source}: {len(usable)} frames; expected more than the {most} to train on")
    chosen = order[:frames]
    split = TrainingSplit(np.sort(chosen[frames // 5 :]), np.sort(chosen[: frames // 5]))
    config = RunConfig(
        name="few-frames",
        data=DataConfig(file=dataset.source),
        model=start.model.config,
        training=TrainingConfig(steps=steps, validate_every=max(1, steps // 20)),
    )
    errors = []
    for initial in (start.path, None):
        with tempfile.TemporaryDirectory() as folder, Progress(steps, f"{name}, {frames} frames") as progress:
            result = train(
                config,
                dataset,
                split,
                Path(folder),
                initial=initial,
                report=lambda step, row, bar=progress: bar.update(step - bar.done),  # type: ignore[misc]
            )
        errors.append(evaluate_dataset([result.model], test).member(0).errors().force_mae)
    started, random = errors
    assert started is not None
    assert random is not None
    return Point(name, frames, started, random, len(test.frames))


def draw(points: list[Point], start: str) -> Figure:
    """Draw both errors against the number of frames, in a panel for each molecule."""
    names = list(dict.fromkeys(p.molecule for p in points))
    figure = Figure(figsize=(3.2 * len(names), 3.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        own = [p for p in points if p.molecule == name]
        frames = [p.frames for p in own]
        axes.loglog(frames, [MEV * p.random for p in own], "o--", label="random weights")
        axes.loglog(frames, [MEV * p.started for p in own], "o-", label=f"from {start}")
        axes.set(title=name, xlabel="labelled frames", ylabel="force MAE (meV/Å)", xticks=frames)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_minor_formatter(ScalarFormatter())
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("start")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--frames", "numbers", default=(25, 50, 100, 200, 400), show_default=True, multiple=True, type=int)
@click.option("--steps", default=3000, show_default=True, type=click.IntRange(1))
@click.option("--output", type=click.Path(path_type=Path), help="Folder for few-frames.md, .csv and .png.")
@exit_on_error
def main(start: str, files: tuple[Path, ...], numbers: tuple[int, ...], steps: int, output: Path | None) -> None:
    """See the module."""
    torch.set_num_threads(1)
    first = locate_members(start)[0]
    points = []
    for file in files:
        dataset = read_dataset(file)
        name = f"{file.parent.name}, {dataset.frames[-1].atoms().get_chemical_formula()}"
        for frames in sorted(numbers):
            points.append(point(first, name, dataset, frames, max(numbers), steps))
            print(points[-1], flush=True)
    rows = [(p.molecule, p.frames, f"{MEV * p.started:.1f}", f"{MEV * p.random:.1f}", p.tested) for p in points]
    note = (
        "Each row has the force MAE of two networks on frames that no row trains on: one was trained from the first "
        f"member of {start}, the other from random weights, on the same frames and for {steps:,} steps."
    )
    publish("few-frames", "Few frames", HEADER, rows, draw(points, start), output, note)


if __name__ == "__main__":
    main()
