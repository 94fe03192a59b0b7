"""The files of a monitor: added to from run to run, and whole again after one that was killed while it wrote."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_extxyz

from schnet_ase.errors import MonitorError
from schnet_ase.neighbors import Floats

LONGEST_ROW = 1000  # bytes, and far from it


class Frame(NamedTuple):
    """What a frame is made of again."""

    step: int
    time_fs: float
    positions: Floats
    momenta: Floats
    cell: Floats
    results: dict[str, Any]
    """The calculator's."""


def check_frames_file(path: Path) -> None:
    """See that frames can be added to `path`; one that was cut off at its end is taken away."""
    new = not path.exists()
    with _appending(path, "file") as file:
        whole = 0
        while count := file.readline():
            number = count.strip()
            lines = [file.readline() for _ in range(int(number) + 1)] if number.isdigit() else [b""]
            if whole == 0 and b"schnet_status=" not in lines[0]:
                raise MonitorError(f"{path} is there and holds no frames of a monitor; give another file or remove it")
            if not number.isdigit() and count.endswith(b"\n"):
                raise MonitorError(
                    f"{path}: no number of atoms at byte {file.tell() - len(count)}, between frames; mend it or give "
                    "another file"
                )
            if not lines[-1].endswith(b"\n"):
                break
            whole = file.tell()
        file.truncate(whole)
    if new:
        path.unlink()  # a run without a flag leaves no file


def append_frames(path: Path, atoms: Atoms, frames: Sequence[tuple[Frame, str]]) -> None:
    """Add frames of `atoms`, each with its status, by one write; they are on disk when this returns."""
    text = io.StringIO()
    for frame, status in frames:
        made = atoms.copy()
        made.positions, made.cell = frame.positions, frame.cell
        made.set_array("momenta", frame.momenta)  # set_momenta would apply the constraints
        results = frame.results
        made.info.update(
            step=frame.step,
            time_fs=frame.time_fs,
            temperature_K=made.get_temperature(),
            schnet_status=status,
            schnet_energy_std=results["energy_std"],
        )
        made.set_array("schnet_forces_deviation", results["forces_deviation"])
        known = {name: results[name] for name in ("energy", "forces", "stress") if name in results}
        made.calc = SinglePointCalculator(made, **known)
        write_extxyz(text, [made])
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(text.getvalue())
        file.flush()
        os.fsync(file.fileno())


def open_log(path: Path, header: bytes) -> io.FileIO:
    """A log to append to, every row at once; a new one gets the header, a row that was cut off is taken away."""
    with _appending(path, "log") as file:
        if first := file.readline():
            if first != header:
                raise MonitorError(f"{path} is there and no log of a monitor; give another log or remove it")
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LONGEST_ROW))
            file.truncate(size - len(file.read().rpartition(b"\n")[2]))
        else:
            file.write(header)
    return io.FileIO(path, "a")


@contextlib.contextmanager
def _appending(path: Path, name: str) -> Iterator[BinaryIO]:
    """`path`, at its start and open for reading and appending."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as file:
            file.seek(0)
            yield file
    except OSError as error:
        raise MonitorError(f"{path} cannot be written ({error.strerror}); give another {name}") from error
