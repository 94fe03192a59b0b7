"""Frames of organic molecules with labels of GFN2-xTB; see README.md beside this file."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import click
from filelock import FileLock, Timeout

from schnet_ase.errors import SchNetError
from schnet_ase.output.files import atomic_write

from .check import check
from .plan import Task, tasks
from .report import collect, report
from .run import make_all

PACKAGES = ("rdkit", "tblite", "qm9pack", "datamol")


@click.group(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """See the module."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)


@main.command("make")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder of the data set.")
@click.option("--rounds", default=400, show_default=True, type=click.IntRange(1))
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Shards at once.")
def make_command(output: Path, rounds: int, workers: int) -> None:
    """Make the shards that are missing, in the order of the plan; the same command resumes after a kill."""
    _make(output, tasks(rounds), workers)


@main.command("explore")
@click.option("--output", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the data set.")
@click.option("--entry", required=True, type=click.Path(path_type=Path, exists=True), help="Calibrated ensemble.")
@click.option("--generation", required=True, type=click.IntRange(1), help="1 for the first ensemble that explores.")
@click.option("--rounds", default=100, show_default=True, type=click.IntRange(1), help="Shards.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Shards at once.")
def explore_command(output: Path, entry: Path, generation: int, rounds: int, workers: int) -> None:
    """Label frames that an ensemble finds in molecules new to it; the same command resumes after a kill."""
    from . import active  # which needs more than `make`

    _make(output, active.tasks(entry.resolve(), generation, rounds), workers)


@main.command("drive")
@click.option("--output", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the data set.")
@click.option("--entry", required=True, type=click.Path(path_type=Path, exists=True), help="Entry that moves atoms.")
@click.option("--first", default=0, show_default=True, type=click.IntRange(0), help="Rounds left to earlier entries.")
@click.option("--rounds", default=200, show_default=True, type=click.IntRange(1), help="Shards of each stream.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Shards at once.")
def drive_command(output: Path, entry: Path, first: int, rounds: int, workers: int) -> None:
    """Label frames of many molecules that a network moves; the same command resumes after a kill."""
    from . import driven  # which needs more than `make`

    _make(output, driven.tasks(entry.resolve(), first, rounds), workers)


def _make(output: Path, wanted: Iterable[Task], workers: int) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # of the workers: shards are made side by side
    output.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output / ".lock").acquire(timeout=0):
            _same_packages(output / "packages.json")
            make_all(output, wanted, workers)
    except Timeout:
        raise click.ClickException(f"{output}: another process works here; wait for it or stop it") from None
    except SchNetError as error:
        raise click.ClickException(str(error)) from error


def _same_packages(file: Path) -> None:
    """Other versions make other frames, which must not be mixed without notice."""
    now = {name: version(name) for name in PACKAGES}
    if not file.exists():
        atomic_write(file, json.dumps(now) + "\n")
        return
    earlier = json.loads(file.read_text())
    changed = [f"{name} {earlier.get(name)}" for name in PACKAGES if earlier.get(name) != now[name]]
    if changed:
        raise SchNetError(f"{file.parent}: was made with {', '.join(changed)}; install these, or give another folder")


@main.command("check")
@click.option("--output", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the data set.")
@click.option("--shards", default=20, show_default=True, type=click.IntRange(1), help="A frame of each is checked.")
def check_command(output: Path, shards: int) -> None:
    """Compare forces with finite differences of the energy, and labels with what is calculated again."""
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        check(output, shards)
    except SchNetError as error:
        raise click.ClickException(str(error)) from error


@main.command("errors")
@click.option("--output", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the data set.")
@click.option("--model", required=True, help="Entry, run or file.")
@click.option("--split", default="test", show_default=True, help="Subset of the frames.")
@click.option("--most", default=20_000, show_default=True, type=click.IntRange(1), help="Frames.")
def errors_command(output: Path, model: str, split: str, most: int) -> None:
    """Print the errors of a model by kind of frame, family, element, size and temperature."""
    from . import errors  # which needs more than `make`

    try:
        errors.report(output, model, split, most)
    except SchNetError as error:
        raise click.ClickException(str(error)) from error


@main.command("minima")
@click.option("--output", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the data set.")
@click.option("--model", required=True, help="Entry of an ensemble.")
@click.option("--molecules", default=100, show_default=True, type=click.IntRange(1))
def minima_command(output: Path, model: str, molecules: int) -> None:
    """Relax drug-like molecules of the test set, and compare with GFN2-xTB's nearest minima."""
    from . import drugs  # which needs more than `make`

    drugs.minima(output, model, molecules)


@main.command("conformers")
@click.option("--output", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the data set.")
@click.option("--model", required=True, help="Entry or file.")
@click.option("--molecules", default=100, show_default=True, type=click.IntRange(1))
def conformers_command(output: Path, model: str, molecules: int) -> None:
    """Compare energies of conformers of drug-like molecules of the test set with those of GFN2-xTB."""
    from . import drugs  # which needs more than `make`

    drugs.conformers(output, model, molecules)


@main.command("speed")
@click.option("--model", required=True, help="Entry or file.")
def speed_command(model: str) -> None:
    """Print how much faster than GFN2-xTB a model makes steps of dynamics."""
    from . import speed  # which needs more than `make`

    speed.speed(model)


@main.command("report")
@click.option("--output", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the data set.")
def report_command(output: Path) -> None:
    """Print what there is by kind, size, split, element and force, and draw it in report.png."""
    try:
        report(output)
    except SchNetError as error:
        raise click.ClickException(str(error)) from error


@main.command("collect")
@click.option("--output", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the data set.")
def collect_command(output: Path) -> None:
    """Write organic.extxyz, which states the subset of each frame, from the shards that are there."""
    try:
        collect(output)
    except SchNetError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
