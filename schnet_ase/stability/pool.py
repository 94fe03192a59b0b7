"""Several runs one after the other or at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

from schnet_ase.errors import SchNetError
from schnet_ase.output.progress import Progress
from schnet_ase.stability.dynamics import simulate
from schnet_ase.stability.runs import Job, Run, read_run

PATIENCE = 30.0
"""Seconds that a process gets to save what it has made."""


def run_jobs(jobs: Sequence[Job], folder: Path, workers: int, progress: Progress) -> Iterator[tuple[Job, Run]]:
    """Run jobs, `workers` at a time, each kept in `folder`; `progress` counts steps, a collapsed run's all at once.

    Raises
    ------
    SchNetError
        As `simulate`, or a process ended without a result.
    """
    if workers > 1 and len(jobs) > 1:
        yield from _side_by_side(jobs, folder, workers, progress)
        return
    before = progress.done
    for job in jobs:
        start = before

        def report(steps: int, start: int = start) -> None:
            progress.update(start + steps - progress.done)

        run = simulate(job, folder, None, report)
        before += job.steps
        progress.update(before - progress.done)
        yield job, run


def _side_by_side(jobs: Sequence[Job], folder: Path, workers: int, progress: Progress) -> Iterator[tuple[Job, Run]]:
    context = get_context("spawn")
    waiting, made, before = list(reversed(jobs)), dict.fromkeys(range(len(jobs)), 0), progress.done
    running: dict[Connection, tuple[int, Job, BaseProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop()
                here, there = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(target=_run_in_process, args=(job, folder, there), daemon=True)
                process.start()
                there.close()
                running[here] = len(jobs) - len(waiting) - 1, job, process
            for connection in cast("list[Connection]", wait(list(running))):
                number, job, process = running[connection]
                said = _listen(connection, job, process, folder)
                made[number] = job.steps if isinstance(said, Run) else said
                progress.update(before + sum(made.values()) - progress.done)
                if isinstance(said, Run):
                    del running[connection]
                    yield job, said
    finally:  # processes that nobody listens to save what they have and end
        for connection, (_, _, process) in running.items():
            connection.close()
            process.join(PATIENCE)


def _listen(connection: Connection, job: Job, process: BaseProcess, folder: Path) -> int | Run:
    """What comes next from a process: the number of steps that it has made, or its result."""
    try:
        said: int | str = connection.recv()
    except EOFError:
        process.join()
        run = read_run(job, folder)
        if run is None:
            status = process.exitcode
            raise SchNetError(f"{job.file}: its process ended with status {status} and no result") from None
        return run
    if isinstance(said, str):
        raise SchNetError(said)
    return said


def _run_in_process(job: Job, folder: Path, there: Connection) -> None:
    """Send the number of steps made so far, or what was wrong."""
    try:
        simulate(job, folder, 1, there.send)
    except (KeyboardInterrupt, BrokenPipeError):  # nobody waits for it; what there is of it is saved
        return
    except SchNetError as error:
        there.send(str(error))
