"""One training step with SchNetPack and with this package, in turns on the same weights and batch.

A step is the loss of energies and forces, its gradient and AdamW, on a batch that is made once, without loader and
logging. Of our ways, `full` is the plain one (each pair of atoms in both directions, eager), `half` evaluates the
filter of a pair once, and `compiled` compiles that, loss and gradient together. First, every loss and gradient is
compared with SchNetPack's.

\b
    python benchmarks/train_speed.py --quick
    python benchmarks/train_speed.py --output docs
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from _report import conditions, exit_on_error, line, table
from _sides import Program, Side, compare, schnetpack_python
from _systems import MOLECULES, labelled_frames
from _worker import Job

from schnet_ase.errors import SchNetError
from schnet_ase.export.schnetpack import from_schnetpack
from schnet_ase.output.files import atomic_write
from schnet_ase.output.progress import Progress
from schnet_ase.training.step.compiled import can_compile

TOLERANCE = 1e-3
"""Largest relative difference of losses and gradients between the sides; these are second derivatives in float32."""


class Case(NamedTuple):
    """Data of a training."""

    system: str
    n_features: int
    batch: int


CASES = (Case("ethanol", 64, 32), Case("ethanol", 128, 10), Case("aspirin", 128, 10))


class Row(NamedTuple):
    """Result of one program for one case."""

    case: Case
    program: str
    ms_per_step: float
    spread: float
    """Relative spread of `ms_per_step` over the blocks: half the distance between quartiles."""
    times_faster: float
    """Speed-up over SchNetPack in the same run."""
    peak_mb: float
    gradient_difference: float
    """Largest difference of a component from SchNetPack's, relative to the largest component."""
    from_eager: float
    """The same difference from the plain eager way."""


HEADER = ("system", "F", "batch", "program", "ms/step", "times faster", "peak MB", "ΔG rel.", "ΔG to `full`")


def cells(row: Row) -> tuple[object, ...]:
    """Return a row as it is printed."""
    return (
        *row.case,
        row.program,
        f"{row.ms_per_step:.3g} ± {row.spread:.0%}",
        f"{row.times_faster:.2f}",
        f"{row.peak_mb:.0f}",
        f"{row.gradient_difference:.0e}",
        f"{row.from_eager:.0e}",
    )


def measure(case: Case, python: str, threads: int, blocks: int, seconds: float) -> list[Row]:
    """Time SchNetPack and all ways of this package for one case, in turns.

    Raises
    ------
    SchNetError
        A side failed, or they do not agree on loss and gradient.
    """
    ways = ("full", "half", *(("compiled",) if can_compile() else ()))
    programs = [Program("SchNetPack", "", python, least=3), *(Program(f"schnet_ase {w}", w, least=3) for w in ways)]
    job = Job("train", "", "", case.n_features, threads, 1, "")
    frames = labelled_frames(case.system, case.batch)
    found = compare(job, frames, programs, check_agreement, blocks, seconds)
    gradients = [gradient for *_, gradient in found]
    return [
        Row(
            case,
            program.name,
            1000.0 * timing.seconds,
            timing.spread,
            found[0][1].seconds / timing.seconds,
            side.peak_mb,
            _difference(gradient, gradients[0]),
            _difference(gradient, gradients[1]),
        )
        for program, (side, timing, gradient) in zip(programs, found, strict=True)
    ]


def check_agreement(sides: Sequence[Side], folder: Path) -> list[np.ndarray]:
    """Return the gradient of the loss with respect to all weights for every side, SchNetPack's first.

    Raises
    ------
    SchNetError
        A loss or gradient differs from the first by more than rounding.
    """
    losses, files = [], [folder / f"gradient-{number}.npz" for number in range(len(sides))]
    for side, file in zip(sides, files, strict=True):
        losses.append(side.ask("gradient", file=str(file))["loss"])
    with np.load(files[0]) as arrays:  # the gradient has the names and shapes of the weights
        parameters = from_schnetpack(dict(arrays)).named_parameters()
    gradients = [{name: parameter.detach().numpy() for name, parameter in parameters}]
    names = list(gradients[0])
    for file in files[1:]:
        with np.load(file) as arrays:
            gradients.append(dict(arrays))
    flat = [np.concatenate([gradient[name].ravel() for name in names]) for gradient in gradients]
    for side, loss, gradient in zip(sides, losses, flat, strict=True):
        of_loss, of_gradient = abs(loss - losses[0]) / losses[0], _difference(gradient, flat[0])
        if not (of_loss <= TOLERANCE and of_gradient <= TOLERANCE):
            raise SchNetError(
                f"{side.name} and {sides[0].name} differ by {of_loss:.1e} in the loss and {of_gradient:.1e} in its "
                f"gradient, relative; expected at most {TOLERANCE:.0e}: nothing was timed"
            )
    return flat


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--system", "systems", multiple=True, type=click.Choice(MOLECULES), help="Repeat for several.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1), help="Threads of each side.")
@click.option("--quick", is_flag=True, help="The first case, short blocks.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for performance-training.md.")
@click.option("--schnetpack-venv", type=click.Path(path_type=Path), help="Environment with SchNetPack 2.1.1.")
@exit_on_error
def main(
    systems: tuple[str, ...], threads: int, quick: bool, output: Path | None, schnetpack_venv: Path | None
) -> None:
    python = schnetpack_python(schnetpack_venv)
    note = f"{conditions(python)} {threads} thread{'s' if threads > 1 else ''} each."
    cases = [case for case in CASES[: 1 if quick else None] if not systems or case.system in systems]
    rows: list[Row] = []
    print(table(HEADER, ()))
    with Progress(len(cases), "train_speed", "case") as progress:
        for case in cases:
            new = measure(case, python, threads, *((3, 0.5) if quick else (9, 2.0)))
            rows += new
            progress.print("\n".join(line(cells(row)) for row in new))
            progress.update()
    print("\n" + note)
    if output is not None:
        page = ["# Speed of a training step, measured", note, table(HEADER, map(cells, rows))]
        atomic_write(output / "performance-training.md", "\n\n".join(page) + "\n")


if __name__ == "__main__":
    main()
