"""Files of a monitor: runs append to them, and the next run repairs them after a kill in the middle of a write."""

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

LONGEST_ROW = 1000  # bytes, a generous upper bound
_logs = weakref.WeakSet[io.FileIO]()
"""Logs that this process has opened."""


@dataclass(slots=True)
class Frame:
    """State of a step, from which its frame can be restored."""

    number: int
    """Index among the monitor's frames, from 0."""
    step: int
    """Step of the dynamics."""
    time_fs: float
    momenta: Floats
    positions: Floats
    cell: Floats
    results: dict[str, Any]
    """Energy, forces and stress of the calculator that moves the atoms; after a check, also the ensemble's spread."""
    temperature: float = math.nan
    """Temperature in K, after a check by the ensemble."""

    def atoms(self, like: Atoms) -> Atoms:
        """Return the atoms of `like` at the positions of this frame."""
        return Atoms(like.numbers, self.positions, cell=self.cell, pbc=like.pbc)


def check_frames_file(path: Path, append: bool = True) -> None:
    """Check that frames can be added to `path`, removing an incomplete last frame or, unless `append`, all frames."""
    new = not path.exists()
    with _writable(path, "file"), open(path, "a+b") as file:
        file.seek(0)
        whole = 0
        while append and (count := file.readline()):
            number, line = count.strip(), file.readline()
            if whole == 0 and b"schnet_status=" not in line:
                raise MonitorError(f"{path} exists and has no frames of a monitor; give another file or remove it")
            if not number.isdigit() and count.endswith(b"\n"):
                at = file.tell() - len(line) - len(count)
                raise MonitorError(
                    f"{path}: no number of atoms at byte {at}, between frames; correct it or give another file"
                )
            if not _read_frame(file, int(number) if number.isdigit() else 0, line):
                break
            whole = file.tell()
        file.truncate(whole)
    if new or not append:
        path.unlink()  # a run without a flag leaves no file


def _read_frame(file: BinaryIO, n_atoms: int, comment: bytes) -> bool:
    """Return whether the rows of all atoms are complete; restore a last end of line that an editor removed."""
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
    """Append frames of `atoms`, each with its status, in one write; they are on disk when the function returns.

    The frames include half-widths of the errors of the calculator that moves the atoms: from the results of an
    ensemble, or from the `calibration` of another calculator.
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
    """Return the half-widths of the energy, eV, and of each atom's force, eV/Å; None where not available."""
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
    """Restore a frame without the other data of `atoms`, as an ``info["energy"]`` could be taken for the ensemble's."""
    made = frame.atoms(atoms)
    for name in ("masses", "initial_charges", "initial_magmoms"):
        if name in atoms.arrays:
            made.set_array(name, atoms.arrays[name])
    made.set_array("momenta", frame.momenta)
    made.set_constraint(copy.deepcopy(atoms.constraints))
    return made


def open_log(path: Path, header: bytes, append: bool = True) -> io.FileIO:
    """Open a log that writes every row at once; add the header to a new one, and remove an incomplete last row.

    If this process still has the log open, as when a notebook cell runs again, the earlier one is closed. Unless
    `append`, the content is left for the caller to replace.
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
                    raise MonitorError(f"{path} exists and is no log of a monitor; give another log or remove it")
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
    """Keep other processes from writing `path`, since rows of two runs could not be distinguished.

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
    except OSError:  # some file systems of clusters have no locks; a run without a lock is better than none
        return


@contextlib.contextmanager
def _writable(path: Path, name: str) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise MonitorError(f"{path} cannot be written ({error.strerror}); give another {name}") from error
