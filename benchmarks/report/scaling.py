"""Section 4.1 of the report: error, time and memory against the number of training frames, of SchNet and of kernels.

SchNet (preset md, a fixed number of steps), the symmetric gradient-domain kernel of the package sgdml, and kernel ridge
regression of the energies by scikit-learn learn the first N of the frames of TRAIN in a random order. A fifth of TRAIN
is left out for validation: the kernels' hyperparameters and the step of SchNet are chosen there. Errors are of all
frames of TEST. Each training runs in a process of its own on one thread; times are that thread's, which other programs
lengthen little; memory is the largest resident size less that before the training. Results are kept, and the same
command resumes; a training that was interrupted starts again.

\b
    pip install "schnet_ase[report]"
    cd benchmarks
    python -m report.scaling rmd17_ethanol_train_01.npz rmd17_ethanol_test_01.npz --output ../docs/report
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from _learners import METHODS
from _report import exit_on_error, publish, table
from _scaling import Job, Result, run, split
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy.stats import linregress

from schnet_ase.data import read_dataset
from schnet_ase.errors import DataError, SchNetError
from schnet_ase.output.progress import Progress

ENOUGH = 10.0
"""MB; less is not told from what an allocator keeps."""


class Quantity(NamedTuple):
    """What is drawn against the number of frames."""

    name: str
    of: Callable[[Result], float | None]


QUANTITIES = (
    Quantity("energy MAE (meV)", lambda r: r.energy),
    Quantity("force MAE (meV/Å)", lambda r: r.forces),
    Quantity("training (processor s)", lambda r: r.seconds),
    Quantity("memory (MB)", lambda r: r.memory_mb if r.memory_mb > ENOUGH else None),
    Quantity("prediction (processor ms/frame)", lambda r: r.milliseconds),
)
HEADER = (
    "method",
    "frames",
    "energy MAE (meV)",
    "force MAE (meV/Å)",
    "training (processor s)",
    "memory (MB)",
    "kernel matrix (MB)",
    "prediction (processor ms/frame)",
    "parameters",
    "chosen",
)


def cells(result: Result) -> tuple[str, ...]:
    """A line of the table."""
    return (
        result.method,
        str(result.n),
        f"{result.energy:.2f}",
        "" if result.forces is None else f"{result.forces:.2f}",
        f"{result.seconds:.3g}",
        f"{result.memory_mb:.0f}",
        f"{result.kernel_mb:.3g}" if result.kernel_mb else "",
        f"{result.milliseconds:.3g}",
        f"{result.parameters:,}",
        result.chosen,
    )


def points(results: Sequence[Result], method: str, quantity: Quantity) -> list[tuple[int, float]]:
    """Numbers of frames and what was measured with them."""
    return [(r.n, v) for r in results if r.method == method and (v := quantity.of(r)) is not None]


def exponents(results: Sequence[Result]) -> str:
    """How each quantity grows with the number of frames: least-squares slopes of the logarithms, as a table."""
    rows = []
    for method in METHODS:
        slopes = []
        for quantity in QUANTITIES:
            some = points(results, method.name, quantity)
            if len(some) < 3:
                slopes.append("")
                continue
            line = linregress(*np.log(some).T)
            slopes.append(f"{line.slope:.2f} ± {line.stderr:.2f}")
        rows.append((method.name, *slopes))
    return table(("grows as a power of the frames", *(q.name.partition(" (")[0] for q in QUANTITIES)), rows)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("train", type=click.Path(path_type=Path))
@click.argument("test", type=click.Path(path_type=Path))
@click.option(
    "--frames",
    "sizes",
    multiple=True,
    default=(50, 100, 200, 400, 800),
    show_default=True,
    type=click.IntRange(2),
    help="To train on; may be given several times.",
)
@click.option("--steps", default=10_000, show_default=True, type=click.IntRange(1), help="Of SchNet.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("../runs/scaling"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Folder for scaling.md, .csv and .png.")
@exit_on_error
def main(train: Path, test: Path, sizes: tuple[int, ...], steps: int, runs: Path, output: Path | None) -> None:
    packages = {package.partition(".")[0] for method in METHODS for package in method.packages}
    if missing := sorted(package for package in packages if find_spec(package) is None):
        raise SchNetError(f'no package {", ".join(missing)}; install them with: pip install "schnet_ase[report]"')
    frames = [read_dataset(file).frames for file in (train, test)]
    if len({tuple(frame.geometry.numbers) for frame in (*frames[0], *frames[1])}) > 1:
        raise DataError(f"{train}, {test}: frames of several molecules; expected one, its atoms in one order")
    split(len(frames[0]), max(sizes))
    folder = runs / train.stem
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [Job(m.name, n, train, test, steps if m.name == "SchNet" else 0) for n in sizes for m in METHODS]
    results = []
    with Progress(100 * len(jobs), "scaling", "hundredth") as progress:
        for job in jobs:
            results.append(run(job, folder, progress))
            progress.print(table(HEADER, [cells(results[-1])]).splitlines()[-1])
    results.sort(key=lambda r: [m.name for m in METHODS].index(r.method))
    rows = [cells(r) for r in results]
    note = (
        f"{train.name}, tested on {test.name}. SchNet takes {steps:,} steps whatever the frames. Training is the time\n"
        "with the hyperparameters chosen, without the search for them; memory is above that of the process before it\n"
        "began, and SchNet's holds PyTorch's compiler where steps are compiled. Slopes and figure are without memory\n"
        f"below {ENOUGH:.0f} MB. The kernel matrix is one copy of it. The ridge regression learns energies alone, and\n"
        "predicts no forces. SchNet predicts frame by frame through its calculator, the others are given all at once."
    )
    title = "Number of frames, and kernels"
    publish("scaling", title, HEADER, rows, draw(results), output, note, [exponents(results)])


def draw(results: Sequence[Result]) -> Figure:
    """Four panels against the number of frames; forces are dashed beside energies."""
    figure = Figure(figsize=(9, 7), layout="constrained")
    energy, forces, *others = QUANTITIES
    panels = figure.subplots(2, 2, sharex=True).ravel()
    for method, color in zip(METHODS, ("tab:blue", "tab:orange", "tab:green"), strict=True):
        for axes, quantity in zip(panels, (energy, *others), strict=True):
            axes.plot(*_columns(points(results, method.name, quantity)), "o-", color=color, label=method.name)
            axes.set(xscale="log", yscale="log", ylabel=quantity.name)
        panels[0].plot(*_columns(points(results, method.name, forces)), "s--", color=color, mfc="none")
    panels[0].set(ylabel="MAE (meV; dashed: forces, meV/Å)")
    sizes = sorted({r.n for r in results})
    for axes in panels[2:]:
        axes.set(xlabel="training frames")
        axes.set_xticks(sizes, [str(n) for n in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(METHODS))
    return figure


def _columns(some: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [n for n, _ in some], [value for _, value in some]


if __name__ == "__main__":
    main()
