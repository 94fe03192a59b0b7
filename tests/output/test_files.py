"""Atomic writes: a file is the old one or the new one, whatever goes wrong in between."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from schnet_ase.output import files
from schnet_ase.output.files import atomic_write, sha256

OLD = b"old content"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An existing file in a folder of its own."""
    path = tmp_path / "folder" / "card.json"
    path.parent.mkdir()
    path.write_bytes(OLD)
    return path


def assert_untouched(target: Path) -> None:
    assert target.read_bytes() == OLD
    assert os.listdir(target.parent) == [target.name], "a temporary file was left behind"


def run_alone(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a script that has `files` loaded by itself, without the package, in a process of its own."""
    preamble = (
        "import importlib.util, os, sys\n"
        "spec = importlib.util.spec_from_file_location('files', sys.argv[1])\n"
        "files = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(files)\n"
    )
    command = [sys.executable, "-I", "-c", preamble + script, files.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("content", "stored"), [(b"\x00\xff new", b"\x00\xff new"), ("5 Å\n", b"5 \xc3\x85\n"), (b"", b"")]
)
def test_replaces_the_whole_file(target: Path, content: bytes | str, stored: bytes) -> None:
    atomic_write(target, content)
    assert target.read_bytes() == stored
    assert os.listdir(target.parent) == [target.name]


def test_makes_missing_folders_and_takes_strings(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    atomic_write(str(path), "x")
    assert path.read_text() == "x"


def test_permissions_are_those_of_an_ordinary_new_file(tmp_path: Path) -> None:
    # The temporary file is private to its owner; a shared folder of models must not become unreadable.
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_leaves_the_umask_as_it_was(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "file", b"x")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_a_reader_sees_the_old_or_the_new_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([k]) * 300_000 for k in range(8)]
    atomic_write(path, contents[0])
    done = threading.Event()

    def write() -> None:
        for content in contents * 2:
            atomic_write(path, content)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(path.read_bytes())
    writer.join()
    assert seen <= set(contents)


@pytest.mark.parametrize("size", [5_000, 1_000_000])  # less and more than Python's buffer
def test_full_disk_keeps_the_old_file(target: Path, size: int) -> None:
    pytest.importorskip("resource")
    script = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    files.atomic_write(sys.argv[2], b'n' * int(sys.argv[3]))\n"
        "except OSError as error:\n"
        "    print(error.errno)\n"
    )
    finished = run_alone(script, target, str(size))
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == str(errno.EFBIG)
    assert_untouched(target)


def test_disk_found_full_on_fsync_keeps_the_old_file(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        atomic_write(target, b"new content")
    assert_untouched(target)


def test_disk_full_before_the_first_version_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        atomic_write(tmp_path / "file", b"new content")
    assert os.listdir(tmp_path) == []


def test_content_is_on_disk_before_it_gets_its_name(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Renamed first, a power cut could leave an empty file under the old name.
    calls = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor: int) -> None:
        calls.append(("fsync", os.fstat(descriptor).st_size))
        fsync(descriptor)

    def recorded_replace(source: str, destination: Path) -> None:
        calls.append(("replace", os.stat(source).st_size))
        assert Path(source).parent == target.parent, "a rename from another folder may cross file systems"
        replace(source, destination)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    atomic_write(target, b"new")
    assert calls[:2] == [("fsync", 3), ("replace", 3)]


def test_interruption_keeps_the_old_file(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(target, b"new content")
    assert_untouched(target)


def test_killed_process_keeps_the_old_file(target: Path) -> None:
    script = (
        "import signal\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.atomic_write(sys.argv[2], b'new content')\n"
    )
    assert run_alone(script, target).returncode == -9
    assert target.read_bytes() == OLD
    # What a killed process leaves must not be taken for a file of the kind it was to become.
    assert list(target.parent.glob("*.json")) == [target]


def test_folder_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "name").mkdir()
    with pytest.raises(OSError, match="name"):
        atomic_write(tmp_path / "name", b"x")
    assert os.listdir(tmp_path) == ["name"]


def test_file_in_the_way_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "name").write_bytes(OLD)
    with pytest.raises(OSError, match="name"):
        atomic_write(tmp_path / "name" / "file", b"x")
    assert (tmp_path / "name").read_bytes() == OLD


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    # FIPS 180-4, appendix B.1.
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(os.urandom(300_000))
    assert sha256(str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()
