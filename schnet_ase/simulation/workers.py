"""Do the same with many things in several processes, of which one that dies takes only its own thing with it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, TypeVar, cast

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

PATIENCE = 5.0
"""Seconds that a process may take to end before it is killed."""


class Failed(NamedTuple):
    """In place of a result: its process ended, or raised an error."""

    reason: str


def work(
    make: Callable[[S], Callable[[T], R]], settings: S, things: Sequence[T], workers: int
) -> Iterator[tuple[int, R | Failed]]:
    """Call a function with each of `things`, and yield the number of each with its result, in any order.

    Parameters
    ----------
    make
        Function of a module that makes the function; each process calls it once, with `settings`.
    settings, things
        They are sent to processes, hence must be such as pickle takes.
    workers
        Number of processes; with 1, everything happens in this one.
    """
    if workers == 1 or len(things) < 2:
        if things:
            call = make(settings)
            for number, thing in enumerate(things):
                yield number, call(thing)
        return
    waiting = list(reversed(range(len(things))))
    running: dict[Connection, tuple[int, BaseProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                connection, process = _start(make, settings)
                running[connection] = _give(connection, waiting.pop(), things), process
            for connection in cast("list[Connection]", wait(list(running))):
                number, process = running.pop(connection)
                try:
                    result: Any = connection.recv()
                except (EOFError, ConnectionError):
                    process.join()
                    result = Failed(f"its process ended with status {process.exitcode}")
                else:
                    if waiting:
                        running[connection] = _give(connection, waiting.pop(), things), process
                    else:
                        connection.close()
                        process.join()
                yield number, result
    finally:
        for connection, (_, process) in running.items():
            connection.close()
            process.terminate()
            process.join(PATIENCE)


def _start(make: Callable[[S], Callable[[T], R]], settings: S) -> tuple[Connection, BaseProcess]:
    context = get_context("spawn")
    here, there = context.Pipe()
    process: BaseProcess = context.Process(target=_serve, args=(make, settings, there), daemon=True)
    process.start()
    there.close()
    return here, process


def _give(connection: Connection, number: int, things: Sequence[Any]) -> int:
    with contextlib.suppress(ConnectionError):  # it has died already, as the answer will show
        connection.send(things[number])
    return number


def _serve(make: Callable[[S], Callable[[T], R]], settings: S, connection: Connection) -> None:
    """Answer each thing with its result until the other process ends or needs no more."""
    try:
        call = make(settings)
        while True:
            connection.send(call(connection.recv()))
    except (EOFError, ConnectionError, KeyboardInterrupt):
        return
