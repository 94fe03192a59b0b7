"""Compile the engine's functions, and keep their machine code on disk."""

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

# No flag may let LLVM assume that there are no infinities, or reorder the sums in exp and log.
_OPTIONS = {"nogil": True, "fastmath": {"contract", "nsz"}, "error_model": "numpy"}


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function that other functions of the engine call."""
    return numba.njit(**_OPTIONS)(function)


def compiled_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that Python calls on its first call, and keep the machine code on disk."""
    try:
        call = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # Numba can write to no folder
        call = numba.njit(**_OPTIONS)(function)
    _CALLED.append(call)

    def run(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except OSError:  # the machine code could not be written (full disk, missing folder), but it is in memory
            return call(*arguments)

    return run


_CALLED: list[Any] = []


def _compilations() -> int:
    """Return the number of compilations begun in this process; machine code found on disk does not count."""
    return sum(sum(call.stats.cache_misses.values()) for call in _CALLED)


@contextlib.contextmanager
def announced(seconds: float = 3.0) -> Iterator[None]:
    """Log a message if a call takes longer than `seconds` because it compiles, as the first one for a kind of system
    does."""
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
    """Return a hash of all compiled files, because Numba only checks the file of a function for changes."""
    digest = hashlib.sha256()
    for file in (*sorted(Path(__file__).parent.glob("*.py")), Path(zbl.__file__)):
        digest.update(file.read_bytes())
    return digest.hexdigest()
