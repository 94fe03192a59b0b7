"""Training for a molecule that no entry covers: errors by frames, steps, learning rate and initial weights.

Frames come from Langevin dynamics of STRUCTURE with GFN2-xTB at 500 K, one every 20 fs after 1 ps; test frames come
from another run with other velocities. For each row, one network is trained on one thread, either from random weights
with the preset `md`, or from the weights of the entry START, which was trained on other molecules with labels of
another method. Printed are errors on the test frames and the training time on one core. Needs
`pip install schnet_ase[learn]`.

    python benchmarks/new_molecule.py examples/butanol.xyz --output docs
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from _report import exit_on_error, publish
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta

from schnet_ase import SchNetConfig, load_model
from schnet_ase.output.progress import Progress
from schnet_ase.training import DataConfig, RunConfig, TrainingConfig, train_from_config

TEMPERATURE = 500.0  # K
MEV = 1000.0
HEADER = (
    *("start", "frames", "steps", "learning rate"),
    *("CPU minutes", "energy MAE (meV)", "force MAE (meV/Å)", "of usual"),
)


class Case(NamedTuple):
    """Parameters of one training."""

    frames: int
    steps: int
    learning_rate: float | None
    """Learning rate; None: the default."""
    start: str | None
    """Entry of the initial weights; None: random weights."""


def cases(start: str, frames: tuple[int, ...], steps: int) -> Iterator[Case]:
    """Yield each number of frames from random weights and from `start`; for the largest, more steps and other rates."""
    for n in frames:
        yield Case(n, steps, None, None)
    yield Case(frames[-1], 4 * steps, None, None)
    for rate in (1e-3, 1e-2):
        yield Case(frames[-1], steps, rate, None)
    for n in frames:
        yield Case(n, steps, None, start)
    yield Case(frames[-1], steps, 1e-3, start)


def label(structure: Atoms, n: int, seed: int, file: Path, kelvin: float = TEMPERATURE) -> None:
    """Write `n` frames of xTB dynamics."""
    from tblite.ase import TBLite

    rng = np.random.default_rng(seed)
    atoms = structure.copy()
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    thermalize_momenta(atoms, temperature_K=kelvin, rng=rng)
    friction = 0.02 / units.fs
    dynamics = Langevin(atoms, 1.0 * units.fs, temperature_K=kelvin, friction=friction, fixcm=False, rng=rng)
    dynamics.run(1000)
    frames = []
    with Progress(n, file.stem, "frame") as progress:
        for _ in range(n):
            dynamics.run(20)
            frame = Atoms(atoms.numbers, atoms.positions)
            frame.calc = SinglePointCalculator(frame, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
            frames.append(frame)
            progress.update()
    write(file, frames)


def measure(case: Case, folder: Path, number: int, usual: float) -> tuple[str, ...]:
    """Return a row of the table."""
    rate = {} if case.learning_rate is None else {"learning_rate": case.learning_rate}
    config = RunConfig(
        name="molecule",
        data=DataConfig(file=str(folder / f"{case.frames}.extxyz"), test=str(folder / "test.extxyz")),
        training=TrainingConfig(steps=case.steps, validate_every=max(1, case.steps // 10), **rate),
        model=SchNetConfig.md() if case.start is None else load_model(case.start).config,
    )
    with Progress(case.steps, f"{case.frames} frames, {case.steps} steps") as progress:

        def report(step: int, row: object) -> None:
            progress.update(step - progress.done)

        began = time.process_time()
        result = train_from_config(config, folder / f"run-{number}", initial=case.start, report=report)
        minutes = (time.process_time() - began) / 60.0
    assert result.test is not None
    assert result.test.energy_mae is not None
    assert result.test.force_mae is not None
    return (
        case.start or "random",
        f"{case.frames:,}",
        f"{case.steps:,}",
        "default" if case.learning_rate is None else f"{case.learning_rate:g}",
        f"{minutes:.1f}",
        f"{MEV * result.test.energy_mae:.1f}",
        f"{MEV * result.test.force_mae:.1f}",
        f"{100.0 * result.test.force_mae / usual:.1f} %",
    )


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("structure", type=click.Path(path_type=Path))
@click.option("--start", default="rmd17-all", show_default=True, help="Entry whose weights the last rows start from.")
@click.option("--frames", "frames", default=(50, 100, 200, 400), show_default=True, multiple=True, type=int)
@click.option("--steps", default=2000, show_default=True, type=click.IntRange(1))
@click.option("--test", "n_test", default=200, show_default=True, type=click.IntRange(1), help="Frames.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for new-molecule.md and .csv.")
@exit_on_error
def main(structure: Path, start: str, frames: tuple[int, ...], steps: int, n_test: int, output: Path | None) -> None:
    torch.set_num_threads(1)
    atoms = read(structure)
    assert isinstance(atoms, Atoms)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        label(atoms, max(frames), 0, folder / "all.extxyz")
        label(atoms, n_test, 1, folder / "test.extxyz")
        every = read(folder / "all.extxyz", ":")
        for n in frames:
            write(folder / f"{n}.extxyz", every[:: len(every) // n][:n])
        usual = float(np.mean([np.abs(frame.get_forces()).mean() for frame in every]))
        rows = []
        for number, case in enumerate(cases(start, frames, steps)):
            rows.append(measure(case, folder, number, usual))
            print(" ".join(rows[-1]), flush=True)
    note = (
        f"{atoms.get_chemical_formula()}, GFN2-xTB at {TEMPERATURE:g} K, {n_test} test frames of another run; a usual "
        f"force component is {MEV * usual:.0f} meV/Å."
    )
    publish("new-molecule", f"{structure.stem}: frames, steps and starts", HEADER, rows, None, output, note)


if __name__ == "__main__":
    main()
