"""Handling of Ctrl-C and SIGTERM during a training: they take effect between two steps, when its state is complete."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from schnet_ase.errors import TrainingError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Raised when a training was asked to end and has written its state; the message says where."""


class StopAsked(TrainingError):
    """Raised in the process of a training that is asked to end; the other processes raise TrainingError with it."""


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGINT or SIGTERM has arrived; a second SIGINT raises KeyboardInterrupt.

    Signals that the process ignores stay ignored. Python delivers signals to the main thread only; in any other thread
    the function always returns False.
    """
    asked = False

    def notice(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True

    in_main_thread = threading.current_thread() is threading.main_thread()
    ours = [s for s in SIGNALS if in_main_thread and signal.getsignal(s) is not signal.SIG_IGN]
    earlier = {number: signal.signal(number, notice) for number in ours}
    try:
        yield lambda: asked
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
