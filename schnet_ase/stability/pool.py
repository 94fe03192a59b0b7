"""Several runs, one after the other or in parallel processes."""

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
"""Seconds that a process may take to save its run before it is abandoned."""


def run_jobs(jobs: Sequence[Job], folder: Path, workers: int, progress: Progress) -> Iterator[tuple[Job, Run]]:
    """Run jobs, `workers` at a time, and yield each with its result when it is done.

    The runs are kept in `folder`. `progress` counts steps; a run that collapses counts as complete.

    Raises
    ------
    SchNetError
        A run failed, see `simulate`, or its process ended without a result.
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
    finally:  # a process whose connection is closed saves its run and ends
        for connection, (_, _, process) in running.items():
            connection.close()
            process.join(PATIENCE)


def _listen(connection: Connection, job: Job, process: BaseProcess, folder: Path) -> int | Run:
    """Return the next message of a process: its number of steps so far, or its result."""
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
    """Run a job, sending the number of steps so far, or the message of an error."""
    try:
        simulate(job, folder, 1, there.send)
    except (KeyboardInterrupt, BrokenPipeError):  # nobody waits for the result; the run so far is saved
        return
    except SchNetError as error:
        there.send(str(error))
