"""A team of threads that share the work of calls."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable

Task = Callable[[int], None]
"""A thread's share of a call, given its number."""


class Team:
    """The threads 1 to ``size - 1``; the caller's thread is thread 0.

    They end with the team, and do not keep a process alive.

    Parameters
    ----------
    size
        Number of threads, including the caller's.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._process = os.getpid()
        self._calls = _Calls()
        weakref.finalize(self, self._calls.end).atexit = False
        for number in range(1, size):
            threading.Thread(target=_work, args=(self._calls, number), name="schnet_ase", daemon=True).start()

    def serves(self, threads: int) -> bool:
        """Return whether the team has that many threads in this process; threads do not survive a fork."""
        return threads <= self.size and self._process == os.getpid()

    def call(self, task: Task, threads: int) -> None:
        """Let the threads with numbers below `threads` run `task`; return at once."""
        self._calls.begin(task, threads)

    def check(self) -> None:
        """Raise the exception with which a thread has failed in the call."""
        if self._calls.failure is not None:
            raise self._calls.failure


class _Calls:
    """The state that the threads of a team share; references to the team itself would keep it alive."""

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
        """Wait for a call after `seen` in which `thread` takes part; return no task if there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or (self._number > seen and thread < self._threads))
            return self._number, None if self._ended else self._task

    def leave(self, number: int, failure: BaseException | None) -> None:
        """Record that a thread has finished a call."""
        with self._changed:
            if number == self._number:  # otherwise the call was interrupted and the next has begun
                self.failure = self.failure or failure
                self._left -= 1
                if not self._left:
                    self._task = None  # also releases the memory of the call


def _work(calls: _Calls, thread: int) -> None:
    number, task = calls.next(0, thread)
    while task is not None:
        failure = None
        try:
            task(thread)
        except BaseException as error:  # the caller raises it
            failure = error
        task = None
        calls.leave(number, failure)
        number, task = calls.next(number, thread)
