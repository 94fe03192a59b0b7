"""Threads that work on calls together."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable

Task = Callable[[int], None]
"""What each thread does of a call, given its number."""


class Team:
    """The threads 1 to ``size - 1``; the caller's own is thread 0.

    They end with the team, and keep no process alive.

    Parameters
    ----------
    size
        Number of threads, the caller's included.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._process = os.getpid()
        self._calls = _Calls()
        weakref.finalize(self, self._calls.end).atexit = False
        for number in range(1, size):
            threading.Thread(target=_work, args=(self._calls, number), name="schnet_ase", daemon=True).start()

    def serves(self, threads: int) -> bool:
        """Whether it has so many threads, in this process: they do not survive a fork."""
        return threads <= self.size and self._process == os.getpid()

    def call(self, task: Task, threads: int) -> None:
        """Have the threads below `threads` run `task`; returns at once."""
        self._calls.begin(task, threads)

    def check(self) -> None:
        """Raise what a thread has failed with in the call."""
        if self._calls.failure is not None:
            raise self._calls.failure


class _Calls:
    """What the threads of a team share; not the team itself, which would then never be collected."""

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        self._changed = threading.Condition()
        self._number = 0
        self._task: Task | None = None
        self._threads = 0
        self._left = 0
        self._ended = False

    def begin(self, task: Task, threads: int) -> None:
        with self._changed:
            self._number += 1
            self._task, self._threads, self._left, self.failure = task, threads, threads - 1, None
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def next(self, seen: int, thread: int) -> tuple[int, Task | None]:
        """Wait for a call after `seen` in which `thread` takes part; no task: there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or (self._number > seen and thread < self._threads))
            return self._number, None if self._ended else self._task

    def leave(self, number: int, failure: BaseException | None) -> None:
        """A thread is through with a call."""
        with self._changed:
            if number == self._number:  # else: interrupted, and the next has begun
                self.failure = self.failure or failure
                self._left -= 1
                if not self._left:
                    self._task = None  # and with it the memory of the call


def _work(calls: _Calls, thread: int) -> None:
    number, task = calls.next(0, thread)
    while task is not None:
        failure = None
        try:
            task(thread)
        except BaseException as error:  # the caller's to raise
            failure = error
        task = None
        calls.leave(number, failure)
        number, task = calls.next(number, thread)
