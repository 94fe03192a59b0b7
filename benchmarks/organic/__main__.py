"""Frames of organic molecules with labels of GFN2-xTB; see README.md beside this file."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import click
from filelock import FileLock, Timeout

from schnet_ase.errors import SchNetError
from schnet_ase.files import atomic_write

from .plan import Task, tasks
from .pool import write_family
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
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
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


def _finished(pool: ProcessPoolExecutor, missing: list[Task], output: Path, workers: int) -> Iterator[Made]:
    """Results in the order in which they come, with few shards waiting, so that any moment's are a prefix."""
    waiting: set[Future[Made]] = set()
    left = iter(missing)
    try:
        while True:
            for task in islice(left, workers + 1 - len(waiting)):
                for part in task.stream.parts:
                    write_family(output, part.family)
                waiting.add(pool.submit(make, task, output, os.getpid()))
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        for future in waiting:
            future.cancel()


if __name__ == "__main__":
    main()
