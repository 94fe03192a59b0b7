"""Table 5 of the report: the shifted softplus as the textbook writes it against the stable one, on eight frames.

The report's default network learns the first frames of DATA from one start: total energies with the textbook's
ln(e^x / 2 + 1 / 2), which overflows float32 at x = 88.7; total energies with the stable form; and energies less the
reference energies, as the package trains. Shown is the largest input of each activation at the last step at which all
is finite, then at the step at which the textbook form ends, and in the figure at every step. A training ends with its
first loss or gradient that is not finite.

\b
    cd benchmarks
    python -m report.overflow rmd17_aspirin_train_01.npz --output ../docs/report
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from _report import exit_on_error, publish
from matplotlib.figure import Figure
from report._fit import learn_total_energies
from torch import Tensor

from schnet_ase import SchNet, SchNetConfig
from schnet_ase.data import Frame, read_dataset
from schnet_ase.data.batches import collate, make_examples
from schnet_ase.networks.activation import ssp
from schnet_ase.output.progress import Progress
from schnet_ase.training.normalization import fit_normalization
from schnet_ase.training.step.loss import LossTerms, eager_step

FRAMES = 8
Activation = Callable[[Tensor], Tensor]


def textbook(x: Tensor) -> Tensor:
    return torch.log(0.5 * torch.exp(x) + 0.5)


class Setting(NamedTuple):
    """One of the three trainings."""

    name: str
    activation: Activation
    references: bool
    """Whether the network learns energies less the reference energies."""


SETTINGS = (
    Setting("textbook, total energies", textbook, False),
    Setting("stable, total energies", ssp, False),
    Setting("stable, reference energies", ssp, True),
)


class Course(NamedTuple):
    """Of a training, step by step."""

    largest: list[list[float]]
    """Steps × activations: the largest input."""
    loss: list[float]
    end: str
    last: list[float]
    """The inputs at the step that ended it; empty where none did."""


def layers(config: SchNetConfig) -> list[str]:
    """The activations in the order in which a forward pass comes to them."""
    blocks = range(1, config.n_interactions + 1)
    filters = [f"filter {k}, layer {layer}" for k in blocks for layer in (1, 2)]
    return [*filters, *(f"interaction {k}" for k in blocks), "readout"]


def watch(model: SchNet, activation: Activation) -> list[float]:
    """Give a model this activation; the list gets the largest input of each call."""
    seen: list[float] = []

    def watched(x: Tensor) -> Tensor:
        seen.append(x.detach().max().item())
        return activation(x)

    model.readout_activation = watched
    for block in model.interactions:
        block.activation = watched
        block.filter_network.activation = watched
    return seen


def learn(setting: Setting, frames: list[Frame], steps: int, rate: float, report: Callable[[], None]) -> Course:
    """Train until the end or the first number that is not finite."""
    torch.manual_seed(0)
    model = SchNet(SchNetConfig.default())
    fit_normalization(model, frames)
    if not setting.references:
        learn_total_energies(model)
    seen = watch(model, setting.activation)
    step = eager_step(model, LossTerms(0.01, 1.0))
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    batch = collate(make_examples(frames, range(len(frames)), None))
    course = Course([], [], "", [])
    for k in range(1, steps + 1):
        seen.clear()
        loss = step(batch).item()
        if not math.isfinite(loss):
            return course._replace(end=f"loss {loss} at step {k:,}", last=list(seen))
        if not all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None):
            return course._replace(end=f"gradient not finite at step {k:,}", last=list(seen))
        course.largest.append(list(seen))
        course.loss.append(loss)
        optimizer.step()
        report()
    return course._replace(end=f"finite for {steps:,} steps")


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--steps", default=500, show_default=True, type=click.IntRange(1))
@click.option("--rate", default=1e-2, show_default=True, type=click.FloatRange(0, min_open=True), help="Adam's.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for overflow.md, .csv and .png.")
@exit_on_error
def main(data: Path, steps: int, rate: float, output: Path | None) -> None:
    frames = list(read_dataset(data).frames[:FRAMES])
    with Progress(len(SETTINGS) * steps, "overflow") as progress:
        courses = [learn(s, frames, steps, rate, progress.update) for s in SETTINGS]
    names = layers(SchNetConfig.default())
    # A training whose first step is not finite already has no last one before it.
    rows = [(name, *(f"{c.largest[-1][k]:.4g}" if c.largest else "" for c in courses)) for k, name in enumerate(names)]
    rows.append(("loss ((eV/Å)²)", *(f"{c.loss[-1]:.4g}" if c.loss else "" for c in courses)))
    rows.append(("", *(c.end for c in courses)))
    at_end = [f"{x:.4g}" for x in courses[0].last] or [""] * len(names)
    rows = [(*row, cell) for row, cell in zip(rows, [*at_end, "", ""], strict=True)]
    header = ("largest input of", *(s.name for s in SETTINGS), f"{SETTINGS[0].name}, at its end")
    publish("overflow", "Where the textbook softplus overflows", header, rows, draw(courses, names), output)


def draw(courses: list[Course], names: list[str]) -> Figure:
    """The largest input of each activation against the step, a panel for each training."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    for axes, setting, course in zip(
        figure.subplots(1, len(SETTINGS), sharex=True, sharey=True), SETTINGS, courses, strict=True
    ):
        inputs = np.array([*course.largest, *([course.last] if course.last else [])]).reshape(-1, len(names))
        for k, name in enumerate(names):
            style = {"filter": ":", "interaction": "-", "readout": "--"}[name.split()[0]]
            axes.plot(np.arange(1, len(inputs) + 1), inputs[:, k], style, lw=1.5, label=name)
        axes.axhline(math.log(torch.finfo(torch.float32).max), color="0.5", lw=0.8)
        axes.set(xlabel="step", xscale="log", yscale="log", title=f"{setting.name}\n{course.end}")
    figure.axes[0].set_ylabel("largest input of an activation")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure


if __name__ == "__main__":
    main()
