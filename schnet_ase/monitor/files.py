"""The files of a monitor: added to from run to run, and whole again after one that was killed while it wrote."""

from __future__ import annotations

import contextlib
import copy
import io
import math
import os
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_extxyz

from schnet_ase.errors import MonitorError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.uncertainty.calibration import Calibration

LONGEST_ROW = 1000  # bytes, and far from it
_logs = weakref.WeakSet[io.FileIO]()
"""Those that this process has open, or has closed."""


@dataclass(slots=True)
class Frame:
    """What a frame is made of again."""

    number: int
    """Of the monitor's frames, from 0."""
    step: int
    """Of the dynamics."""
    time_fs: float
    momenta: Floats
    positions: Floats
    cell: Floats
    results: dict[str, Any]
    """Energy, forces and stress of the calculator that moves the atoms; once the ensemble has looked, its spread."""
    temperature: float = math.nan
    """K, once the ensemble has looked."""

    def atoms(self, like: Atoms) -> Atoms:
        """Where the atoms of `like` were."""
        return Atoms(like.numbers, self.positions, cell=self.cell, pbc=like.pbc)


def check_frames_file(path: Path, append: bool = True) -> None:
    """See that frames can be added to `path`; one cut off at its end is taken away, and all of them unless `append`."""
    new = not path.exists()
    with _writable(path, "file"), open(path, "a+b") as file:
        file.seek(0)
        whole = 0
        while append and (count := file.readline()):
            number, line = count.strip(), file.readline()
            if whole == 0 and b"schnet_status=" not in line:
                raise MonitorError(f"{path} is there and holds no frames of a monitor; give another file or remove it")
            if not number.isdigit() and count.endswith(b"\n"):
                at = file.tell() - len(line) - len(count)
                raise MonitorError(
                    f"{path}: no number of atoms at byte {at}, between frames; mend it or give another file"
                )
            if not _read_frame(file, int(number) if number.isdigit() else 0, line):
                break
            whole = file.tell()
        file.truncate(whole)
    if new or not append:
        path.unlink()  # a run without a flag leaves no file


def _read_frame(file: BinaryIO, n_atoms: int, comment: bytes) -> bool:
    """Whether the atoms' rows are all there; a last one whose end of line an editor took away gets it back."""
    row = comment
    for k in range(n_atoms):
        if not row.endswith(b"\n"):
            return False
        before, row = row, file.readline()
        if k == n_atoms - 1 > 0 and len(row) + 1 == len(before):  # rows of a frame are as long as each other
            row += b"\n"
            file.write(b"\n")
    return row.endswith(b"\n")


def append_frames(
    path: Path, atoms: Atoms, frames: Sequence[tuple[Frame, str]], calibration: Calibration | None = None
) -> None:
    """Add frames of `atoms`, each with its status, by one write; they are on disk when this returns.

    Half-widths of the errors go with them: those of an ensemble that moves the atoms itself, or those of another
    calculator that does, by its `calibration`.
    """
    text = io.StringIO()
    for frame, status in frames:
        results = frame.results
        made = _bare(atoms, frame)
        made.info.update(
            step=frame.step,
            time_fs=frame.time_fs,
            temperature_K=frame.temperature,
            schnet_status=status,
            schnet_energy_std=results["energy_std"],
        )
        made.set_array("schnet_forces_deviation", results["forces_deviation"])
        energy, forces = _half_widths(atoms, results, calibration)
        if energy is not None:
            made.info["schnet_energy_uncertainty"] = energy
        if forces is not None:
            made.set_array("schnet_forces_uncertainty", forces)
        known = {name: results[name] for name in ("energy", "forces", "stress") if name in results}
        made.calc = SinglePointCalculator(made, **known)
        write_extxyz(text, [made])
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(text.getvalue())
        file.flush()
        os.fsync(file.fileno())


def _half_widths(
    atoms: Atoms, results: dict[str, Any], calibration: Calibration | None
) -> tuple[float | None, Floats | None]:
    """Of the energy, eV, and of each atom's force, eV/Å."""
    if calibration is None:
        return results.get("energy_uncertainty"), results.get("forces_uncertainty")
    energy = forces = None
    if calibration.energy is not None:
        energy = float(calibration.energy.half_width(results["energy_std"], calibration.coverage))
    if calibration.forces is not None:
        deviation = results["forces_deviation"]
        forces = calibration.forces_half_width(deviation, atoms.numbers, calibration.coverage)
    return energy, forces


def _bare(atoms: Atoms, frame: Frame) -> Atoms:
    """Without what else `atoms` carry: an ``info["energy"]`` of another method would stand for the ensemble's."""
    made = frame.atoms(atoms)
    for name in ("masses", "initial_charges", "initial_magmoms"):
        if name in atoms.arrays:
            made.set_array(name, atoms.arrays[name])
    made.set_array("momenta", frame.momenta)
    made.set_constraint(copy.deepcopy(atoms.constraints))
    return made


def open_log(path: Path, header: bytes, append: bool = True) -> io.FileIO:
    """A log to append to, every row at once; a new one gets the header, a row that was cut off is taken away.

    One of this process that is still open is closed: a cell of a notebook that is run again has not dropped it yet.
    Unless `append`, what is in the log is for the caller to replace.
    """
    with _writable(path, "log"):
        log = io.FileIO(path, "a+")
        try:
            for other in list(_logs):
                if not other.closed and os.path.sameopenfile(other.fileno(), log.fileno()):
                    other.close()
            _lock(log, path)
            _logs.add(log)
            if not append:
                return log
            log.seek(0)
            if first := log.readline():
                if first != header:
                    raise MonitorError(f"{path} is there and no log of a monitor; give another log or remove it")
                size = log.seek(0, os.SEEK_END)
                log.seek(max(0, size - LONGEST_ROW))
                log.truncate(size - len(log.read().rpartition(b"\n")[2]))
            else:
                log.write(header)
        except (MonitorError, OSError):
            log.close()
            raise
    return log


def _lock(log: io.FileIO, path: Path) -> None:
    """Keep other processes from writing `path`: rows of two runs could not be told apart.

    By flock: a lock by lockf is gone as soon as this process has read the log and closed it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise MonitorError(f"{path} is being written by another process; give another log and another file") from error
    except OSError:  # some file systems of clusters have no locks, and a run there is worth more than this
        return


@contextlib.contextmanager
def _writable(path: Path, name: str) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise MonitorError(f"{path} cannot be written ({error.strerror}); give another {name}") from error
