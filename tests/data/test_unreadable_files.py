"""Files that cannot be read are refused in one line, and closed."""

from __future__ import annotations

import gc
import gzip
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import ase.db
import ase.io
import ase.io.jsonio
import numpy as np
import pytest
from ase import Atoms

from tests.support.trajectories import N_FRAMES, read_refused, save_db, save_rmd17


@pytest.mark.parametrize("name", ["a.npz", "a.db", "a.extxyz", "a.xyz.gz", "no suffix"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    assert "no such file" in read_refused(tmp_path / name)
    assert os.listdir(tmp_path) == [], "looking for a file must not make one"


def test_folder_instead_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.npz").mkdir()
    read_refused(tmp_path / "a.npz")


@pytest.mark.parametrize("kept", [0, 1, 10, 0.5, 0.9, -1])
def test_truncated_npz(tmp_path: Path, arrays: dict[str, np.ndarray], kept: float) -> None:
    file = save_rmd17(tmp_path / "a.npz", arrays)
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content)) if 0 < kept < 1 else int(kept)])
    read_refused(file)
    gc.collect()  # A file that the reader left open warns here, and not in some other test.


def test_damaged_npz(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    file = save_rmd17(tmp_path / "a.npz", arrays)
    content = bytearray(file.read_bytes())
    content[content.index(arrays["F"].tobytes()) + 5] ^= 1
    file.write_bytes(content)
    read_refused(file)


@pytest.mark.parametrize("kept", [5, 50, 1000, 4096, 0.5])
def test_truncated_db(tmp_path: Path, frames: list[Atoms], kept: float) -> None:
    file = save_db(tmp_path / "a.db", frames)
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content)) if kept < 1 else int(kept)])
    read_refused(file)


def test_empty_db(tmp_path: Path) -> None:
    # SQLite takes an empty file for an empty database, and ASE would fill it with its tables.
    file = tmp_path / "a.db"
    file.write_bytes(b"")
    read_refused(file)
    assert file.read_bytes() == b""


def test_sqlite_database_of_another_program(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE notes (text)")
    connection.commit()
    connection.close()
    before = file.read_bytes()
    read_refused(file)
    assert file.read_bytes() == before, "another program's file was changed by reading it"


@pytest.mark.parametrize("lines", [1, 2, 4])
def test_truncated_extxyz(tmp_path: Path, frames: list[Atoms], lines: int) -> None:
    file = tmp_path / "a.extxyz"
    ase.io.write(file, frames)
    file.write_text("".join(file.read_text().splitlines(keepends=True)[: 5 + lines]))
    read_refused(file)


def test_extxyz_that_ends_in_a_line(tmp_path: Path, frames: list[Atoms]) -> None:
    file = tmp_path / "a.extxyz"
    ase.io.write(file, frames)
    file.write_text(file.read_text()[:-30])
    read_refused(file)


def test_empty_extxyz(tmp_path: Path) -> None:
    (tmp_path / "a.extxyz").write_bytes(b"")
    read_refused(tmp_path / "a.extxyz")


@pytest.mark.parametrize("kept", [0, 5, 0.5, -1])
def test_truncated_gz(tmp_path: Path, frames: list[Atoms], kept: float) -> None:
    file = tmp_path / "a.extxyz.gz"
    ase.io.write(file, frames, format="extxyz")
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content)) if 0 < kept < 1 else int(kept)])
    read_refused(file)


FOREIGN = {"text": b"two words\nand more\n" * 50, "random": np.random.default_rng(0).bytes(2000), "zeros": bytes(5000)}


@pytest.mark.parametrize("name", ["a.npz", "a.db", "a.extxyz", "a.xyz", "a.extxyz.gz", "a.traj", "a.dat", "a.toml"])
@pytest.mark.parametrize("content", list(FOREIGN))
def test_foreign_file(tmp_path: Path, name: str, content: str) -> None:
    file = tmp_path / name
    file.write_bytes(FOREIGN[content])
    read_refused(file)
    assert file.read_bytes() == FOREIGN[content]


@pytest.mark.parametrize("name", ["a.npz", "a.db", "a.extxyz", "a.extxyz.gz", "a.traj"])
def test_refused_file_is_closed(tmp_path: Path, frames: list[Atoms], name: str) -> None:
    # The ResourceWarning of a file that was left open is an error here.
    file = tmp_path / name
    if name == "a.npz":
        np.savez(file, weights=np.ones(3))
    else:
        ase.io.write(file, frames, **({"format": "extxyz"} if "xyz" in name else {}))
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2 - 40])
    read_refused(file)
    gc.collect()


def test_gzipped_npz_under_the_name_of_an_extxyz_file(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    file = tmp_path / "a.extxyz.gz"
    file.write_bytes(gzip.compress(save_rmd17(tmp_path / "a.npz", arrays).read_bytes()))
    read_refused(file)


def test_npz_of_another_program_says_what_it_holds(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", weights=np.ones(3), bias=np.ones(1))
    message = read_refused(tmp_path / "a.npz")
    assert "weights" in message
    assert "nuclear_charges" in message


def test_npz_with_an_order_of_atoms_for_each_frame(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    numbers = np.tile([6, 1, 8], (len(arrays["E"]), 1))
    message = read_refused(save_rmd17(tmp_path / "a.npz", arrays, nuclear_charges=numbers))
    assert "one order of atoms for all frames; save frames of several orders as extxyz" in message


def test_npy_under_the_name_of_an_npz_file(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as stream:
        np.save(stream, np.ones(3))
    read_refused(tmp_path / "a.npz")


class MakesFolder:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_pickled_objects_in_an_npz_do_not_run(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    mark = tmp_path / "code was run"
    payload = np.empty(N_FRAMES, dtype=object)
    payload[:] = [MakesFolder(mark)] + [0.0] * (N_FRAMES - 1)
    file = save_rmd17(tmp_path / "a.npz", arrays, energies=payload)
    with np.load(file, allow_pickle=True) as archive:
        archive["energies"]
    assert mark.exists(), "the payload would not have run anyway"
    mark.rmdir()
    read_refused(file)
    assert not mark.exists()
