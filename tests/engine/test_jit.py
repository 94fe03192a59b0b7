"""Compilation: announced where it is long, and no error where its result cannot be kept."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from schnet_ase.engine import jit


def test_no_folder_for_machine_code_is_no_error(monkeypatch):
    monkeypatch.setattr(jit, "cache_folder", lambda: None)
    done = np.zeros(1)

    @jit.compiled_once
    def mark(array):
        array[0] = 1.0

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

    monkeypatch.setattr(jit.numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    done = np.zeros(1)

    @jit.compiled_once
    def mark(array):
        array[0] += 1.0

    mark(done)
    mark(done)
    assert done[0] == 2.0


TINY = """
import os
import numpy as np
from schnet_ase.engine import jit

digest = jit.sources_digest() + os.environ["OF"]
jit.sources_digest = lambda: digest[-64:]

def add_two_to(array):
    array[0] += 2.0

if __name__ == "__main__":
    done = np.zeros(1)
    jit.compiled_once(add_two_to)(done)
    print(done[0], jit._compilations())
"""


def test_machine_code_is_found_by_another_installation(tmp_path):
    """The same sources at another place, with other times; other sources of the engine or of the function are not."""

    def run(place, text=TINY, of=""):
        file = tmp_path / place / "tiny.py"
        file.parent.mkdir()
        file.write_text(text)
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "OF": of}
        found = subprocess.run([sys.executable, file], env=environment, capture_output=True, text=True, check=True)
        return found.stdout.split()

    assert run("first") == ["2.0", "1"]
    assert run("second") == ["2.0", "0"]
    assert run("another engine", of="0" * 64) == ["2.0", "1"]
    assert run("another function", TINY.replace("+= 2.0", "+= 3.0")) == ["3.0", "1"]
    assert run("third") == ["2.0", "0"]


def test_one_process_compiles_while_others_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(jit.numba.config, "CACHE_DIR", str(tmp_path))
    call = jit.numba.njit(add_one_to)
    call(np.zeros(1))
    ((signature, result),) = call.overloads.items()
    context = result.target_context
    first, second = (jit._Cache(add_one_to) for _ in range(2))
    assert first.load_overload(signature, context) is None
    found = []
    waiting = threading.Thread(target=lambda: found.append(second.load_overload(signature, context)))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    first.save_overload(signature, result)
    waiting.join(60.0)
    assert found[0] is not None


def test_every_compiled_file_is_in_the_hash():
    folder = Path(jit.__file__).parent
    compiled = {
        file.stem
        for file in folder.glob("*.py")
        if re.search(r"^@(compiled|intrinsic)|= compiled", file.read_text(), re.M)
    }
    assert compiled <= set(jit.SOURCES)
    assert compiled >= {"kernel", "simd", "cells", "gradients", "repulsion"}
    assert all((folder / f"{name}.py").is_file() for name in jit.SOURCES)
