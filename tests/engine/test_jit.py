"""Compilation: announced where it is long, and no error where its result cannot be kept."""

import shutil
import time

import numpy as np

from schnet_ase.engine import jit


def test_no_folder_for_machine_code_is_no_error(monkeypatch):
    njit = jit.numba.njit

    def no_folder(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(jit.numba, "njit", no_folder)
    done = np.zeros(1)

    @jit.compiled_once
    def mark(array):
        array[0] = 1.0

    monkeypatch.undo()  # of what Numba compiles for itself, too
    mark(done)
    assert done[0] == 1.0


def test_a_long_compilation_is_announced_and_a_short_one_not(caplog, tmp_path, monkeypatch):
    monkeypatch.setattr(jit.numba.config, "CACHE_DIR", str(tmp_path))

    def first_call(seconds, wait):
        """Until something is announced, or `wait` is over."""
        with jit.announced(seconds):
            jit.compiled_once(add_one_to)(np.zeros(1))
            deadline = time.monotonic() + wait
            while not caplog.messages and time.monotonic() < deadline:
                time.sleep(0.01)
        return caplog.messages

    assert "compiling the engine" in first_call(0.01, 30.0)[0]
    caplog.clear()
    assert not first_call(0.01, 0.5)  # from the disk, however long it takes
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    assert not first_call(30.0, 0.0)


def add_one_to(array):
    array[0] += 1.0


def test_a_full_disk_is_no_error(tmp_path, monkeypatch):
    from numba.core import caching

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    done = np.zeros(1)

    @jit.compiled_once
    def mark(array):
        array[0] += 1.0

    mark(done)
    mark(done)
    assert done[0] == 2.0
