"""All shards, by some processes, in the order of the plan."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path

from schnet_ase.errors import SchNetError

from .plan import Task
from .pool import write_family
from .shards import Made, file_of, make

LOGGER = logging.getLogger("schnet_ase")


def make_all(output: Path, wanted: Iterable[Task], workers: int) -> None:
    """Make the shards that are missing.

    Parameters
    ----------
    output
        Folder of the data set.
    wanted
        Shards in the order in which they are made.
    workers
        Shards at once.

    Raises
    ------
    SchNetError
        Shards failed.
    """
    for unfinished in output.glob("*/.*.tmp"):  # of a command that was killed
        unfinished.unlink(missing_ok=True)
    missing = [task for task in wanted if not file_of(output, task).exists()]
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
