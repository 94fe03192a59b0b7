"""Ctrl-C and SIGTERM during a training: they are noticed between two steps, where its state can be written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from schnet_ase.errors import TrainingError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A training was asked to end and has written its state; the message says where."""


class StopAsked(TrainingError):
    """What one of several processes of a training tells the others when it is asked to end."""


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM has come since; a second SIGINT is a KeyboardInterrupt at once.

    Signals that the process ignores stay ignored. In any other thread than the main one, to which Python gives all
    signals, nothing is ever noticed.
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
