"""Compile the engine's functions, and keep their machine code for all environments of this user."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import filelock
import llvmlite
import numba
from numba.core import caching
from platformdirs import user_cache_path

from schnet_ase.priors import repulsion

SOURCES = ("ahead", "barrier", "cells", "dense", "gradients", "kernel", "layout", "pairs", "repulsion", "simd")
"""Modules of this folder that the machine code depends on, besides that of the repulsion."""
PATIENCE = 600.0
"""Seconds for which a process waits for another one that compiles the same function."""
# No flag may let LLVM assume that there are no infinities, or reorder the sums in exp and log.
_OPTIONS = {
    "nogil": True,
    "fastmath": {"contract": True, "nsz": True},
    "error_model": "numpy",
    "no_cfunc_wrapper": True,
}


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function that only other functions of the engine call.

    Without the code by which Python could call it, which would take a quarter of the time to compile.
    """
    return numba.njit(**_OPTIONS, no_cpython_wrapper=True)(function)


def compiled_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that Python calls on its first call, and keep the machine code on disk."""
    return _kept(function, _OPTIONS)


def compiled_once_with_reordered_sums(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile as `compiled_once` does, and let LLVM reorder sums, so that it computes several terms at once."""
    return _kept(function, _OPTIONS | {"fastmath": {"contract", "nsz", "reassoc"}})


def _kept(function: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    call = numba.njit(**options)(function)
    with contextlib.suppress(RuntimeError):  # Numba can write to no folder
        # What njit(cache=True) does, with another folder: there is no public way to choose one for some functions.
        call._cache = _Cache(function)
    _CALLED.append(call)

    def run(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except OSError:  # the machine code could not be written (full disk, missing folder), but it is in memory
            return call(*arguments)

    return run


_CALLED: list[Any] = []


class _Folder(caching._CacheLocator):  # type: ignore[misc]  # Numba has no types
    """Where machine code is kept: by what it was compiled from and with, not by where the package is installed.

    Numba's own folders belong to one environment each, and it only checks the file of the function for changes.

    Parameters
    ----------
    folder
        Folder for functions of these sources.
    file
        File of the function, which need not be one of them.
    """

    def __init__(self, folder: Path, file: str = __file__) -> None:
        self._folder, self._file = folder, file

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Folder | None:
        folder = cache_folder()
        return None if folder is None else cls(folder, py_file)

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return sources_digest()

    def get_disambiguator(self) -> str:
        """Return a part of the name that tells functions of one name, and versions of a file, apart."""
        return hashlib.sha256(Path(self._file).read_bytes()).hexdigest()[:12]


class _Implementation(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = [_Folder]  # noqa: RUF012 - Numba's form


class _Cache(caching.FunctionCache):  # type: ignore[misc]
    """Machine code on disk, which one process makes while others that need the same wait for it."""

    _impl_class = _Implementation
    _lock: filelock.BaseFileLock | None = None

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = super().load_overload(sig, target_context)
        if found is None:
            name = hashlib.sha256(str(sig).encode()).hexdigest()[:16]
            lock = filelock.FileLock(os.path.join(self.cache_path, f"{self._py_func.__name__}-{name}.lock"))
            with contextlib.suppress(OSError, filelock.Timeout):  # then several processes compile the same
                lock.acquire(timeout=PATIENCE)
                self._lock = lock
            found = super().load_overload(sig, target_context)
            if found is not None:
                self._release()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        finally:
            self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def cache_folder() -> Path | None:
    """Return the folder for machine code, or None if none can be written to.

    It lies in the folder of ``NUMBA_CACHE_DIR`` if that is set, in the user's, or in the package.
    """
    given = [Path(numba.config.CACHE_DIR)] if numba.config.CACHE_DIR else []
    for place in (*given, user_cache_path("schnet_ase") / "engine", Path(__file__).parent / "__pycache__"):
        folder = place / sources_digest()[:20]
        with contextlib.suppress(OSError):
            _Folder(folder).ensure_cache_path()
            return folder
    return None


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
                    "compiling the engine: up to a minute, once on each machine for each dtype and kind of system; "
                    "then it is kept"
                )
                logging.getLogger("schnet_ase").warning(message)
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()


@cache
def sources_digest() -> str:
    """Return a hash of all compiled files, and of the compiler's versions and options."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__} {_OPTIONS}".encode())
    here = Path(__file__).parent
    for file in (*(here / f"{name}.py" for name in SOURCES), Path(repulsion.__file__)):
        digest.update(file.read_bytes())
    return digest.hexdigest()
