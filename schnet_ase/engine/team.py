"""Threads that work on calls together."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

Task = Callable[[int], None]
"""What each thread does of a call, given its number."""


class Team:
    """The threads 1 to ``size - 1``; the caller's own is thread 0.

    A thread runs the tasks of call after call for as long as there is a new one when it is through: a task is meant to
    end with waiting for the next call a little, awake, because waking up takes longer than many a stage of a call.

    Parameters
    ----------
    size
        Number of threads, the caller's included.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.executor = ThreadPoolExecutor(size - 1, thread_name_prefix="schnet_ase")
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._calls = 0
        self._task: Task | None = None
        self._at_work: dict[int, Future[None]] = {}

    def serves(self, size: int) -> bool:
        """Whether this is a team of `size` threads of this process: threads do not survive a fork."""
        return self.size == size and self._process == os.getpid()

    def call(self, task: Task) -> Sequence[Future[None]]:
        """Have every thread run `task`; returns at once, with what tells of threads that have failed."""
        with self._lock:
            self._task = task
            for thread in range(1, self.size):
                if thread not in self._at_work:
                    self._at_work[thread] = self.executor.submit(self._attend, thread, self._calls)
            self._calls += 1
            return list(self._at_work.values())

    def _attend(self, thread: int, seen: int) -> None:
        try:
            while True:
                with self._lock:
                    if self._calls == seen or self._task is None:
                        del self._at_work[thread]
                        return
                    seen, task = self._calls, self._task
                task(thread)
        except BaseException:
            with self._lock:
                del self._at_work[thread]
            raise
