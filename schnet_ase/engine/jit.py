"""How the engine's functions are compiled, and where the machine code is kept."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba

from schnet_ase.priors import zbl

# No flag that lets LLVM assume that there is no infinity, or reorder the sums that exp and log are made of.
_OPTIONS = {"nogil": True, "fastmath": {"contract", "nsz"}, "error_model": "numpy"}


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function that others here call."""
    return numba.njit(**_OPTIONS)(function)


def compiled_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that Python calls, on its first call, and keep the machine code on disk."""
    try:
        call = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # no folder that Numba could write to
        call = numba.njit(**_OPTIONS)(function)
    _CALLED.append(call)

    def run(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except OSError:  # the machine code could not be written: disk full, folder gone; it is in memory all the same
            return call(*arguments)

    return run


_CALLED: list[Any] = []


def _compilations() -> int:
    """Begun in this process; machine code that was found on disk does not count."""
    return sum(sum(call.stats.cache_misses.values()) for call in _CALLED)


@contextlib.contextmanager
def announced(seconds: float = 3.0) -> Iterator[None]:
    """Say what takes so long, if it does and is a compilation, as the first call for a kind of system is."""
    before, done = _compilations(), threading.Event()

    def watch() -> None:
        while not done.wait(seconds):
            if _compilations() > before:
                message = (
                    "compiling the engine: up to a minute and a half, once for each installation, dtype and kind of "
                    "system; then it is kept"
                )
                logging.getLogger("schnet_ase").warning(message)
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def sources_digest() -> str:
    """Of all compiled files: Numba looks only at the one that a function is in to see whether it has changed."""
    digest = hashlib.sha256()
    for file in (*sorted(Path(__file__).parent.glob("*.py")), Path(zbl.__file__)):
        digest.update(file.read_bytes())
    return digest.hexdigest()
