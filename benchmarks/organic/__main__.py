"""Frames of organic molecules with labels of GFN2-xTB; see README.md beside this file."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import click
from filelock import FileLock, Timeout

from schnet_ase.errors import SchNetError
from schnet_ase.files import atomic_write

from .check import check
from .plan import Task, tasks
from .pool import write_family
from .report import collect, report
from .shards import Made, file_of, make

LOGGER = logging.getLogger("schnet_ase")
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
    os.environ["OMP_NUM_THREADS"] = "1"  # of the workers: shards are made side by side
    output.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output / ".lock").acquire(timeout=0):
            for unfinished in output.glob("*/.*.tmp"):  # of a command that was killed
                unfinished.unlink()
            _same_packages(output / "packages.json")
            _make(output, rounds, workers)
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


def _make(output: Path, rounds: int, workers: int) -> None:
    missing = [task for task in tasks(rounds) if not file_of(output, task).exists()]
    LOGGER.info("%d shards to make", len(missing))
    begun, total = time.monotonic(), Counter[str]()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=_end_with, initargs=(os.getpid(),)) as pool:
        for done, made in enumerate(_finished(pool, missing, output, workers), start=1):
            total.update(made.counts)
            rate = total["labels"] / (time.monotonic() - begun)
            LOGGER.info(
                "%s: %d frames; %d of %d shards, %d frames, %.1f labels/s; dropped: %s",
                made.name,
                made.counts["kept"],
                done,
                len(missing),
                total["kept"],
                rate,
                ", ".join(f"{n} {key}" for key, n in total.items() if key not in ("kept", "labels")),
            )


def _end_with(parent: int) -> None:
    """End this worker soon after the command that it belongs to, which may have been killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _finished(pool: ProcessPoolExecutor, missing: list[Task], output: Path, workers: int) -> Iterator[Made]:
    """Results in the order in which they come, with few shards waiting, so that any moment's are a prefix."""
    waiting: dict[Future[Made], Task] = {}
    failed = []
    left = iter(missing)
    try:
        while True:
            for task in islice(left, workers + 1 - len(waiting)):
                for part in task.stream.parts:
                    write_family(output, part.family)
                waiting[pool.submit(make, task, output)] = task
            if not waiting:
                break
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                task = waiting.pop(future)
                if (error := future.exception()) is None:
                    yield future.result()
                elif isinstance(error, BrokenProcessPool):
                    raise SchNetError(f"{task.name}: its worker ended; the same command begins with it again")
                else:
                    failed.append(task.name)
                    LOGGER.warning("%s: left out, %s: %s", task.name, type(error).__name__, error)
    finally:
        for future in waiting:
            future.cancel()
    if failed:
        raise SchNetError(f"{output}: {', '.join(failed)} failed; the same command tries them again")


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
    """Write a file of each split, fold-0.extxyz to test.extxyz, from the shards that are there."""
    try:
        collect(output)
    except SchNetError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
