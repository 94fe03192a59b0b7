"""Files of reference data to frames in eV and Å. Units are converted here and nowhere else."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import sqlite3
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ase.db
import ase.io
import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from schnet_ase.data.frames import Dataset, Frame
from schnet_ase.errors import DataError
from schnet_ase.files import sha256
from schnet_ase.neighbors import Geometry

EnergyUnit = Literal["eV", "kcal/mol", "Hartree"]
FRAMES_AT_ONCE = 1000
"""That are asked of an ASE database, which holds all that it is asked for in memory."""
IN_EV: Mapping[EnergyUnit, float] = {"eV": 1.0, "kcal/mol": units.kcal / units.mol, "Hartree": units.Hartree}


class OpenedFrames(NamedTuple):
    """A file that is being read, frame by frame; the rest is as in `Dataset`."""

    frames: Iterator[Frame]
    source: str
    sha256: str
    units: str


def read_dataset(
    path: str | os.PathLike[str],
    *,
    energy_unit: EnergyUnit | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
) -> Dataset:
    """Read labelled frames from a file.

    Parameters
    ----------
    path
        ``.npz`` in the MD17 or rMD17 layout, ``.db`` of ASE (ISO17's keys included), or anything else that
        `ase.io` reads (extxyz, also gzipped).
    energy_unit
        Unit of the energies; forces are in this per Å. None assumes the format's own: kcal/mol for ``.npz``, eV else.
    energy_key, forces_key
        Where the labels are, for files that do not use the format's own names.

    Returns
    -------
    Dataset
        Unchecked: `check_frames` says whether the labels can be trusted.

    Raises
    ------
    DataError
        The file is missing or not of its format.
    """
    opened = open_frames(path, energy_unit=energy_unit, energy_key=energy_key, forces_key=forces_key)
    return Dataset(list(opened.frames), *opened[1:])


def open_frames(
    path: str | os.PathLike[str],
    *,
    energy_unit: EnergyUnit | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
) -> OpenedFrames:
    """Begin to read a file; parameters and errors of `read_dataset`, some of the errors when a frame is asked for."""
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file}: no such file; expected reference data (.npz, .db, .extxyz, ...)")
    if energy_unit is not None and energy_unit not in IN_EV:
        raise DataError(f"{file}: energy_unit is {energy_unit!r}; expected one of {', '.join(IN_EV)}")
    reader, default_unit, convention = _reader(file)
    unit = energy_unit or default_unit
    try:
        digest = sha256(file)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error})") from error
    assumed = "as given" if energy_unit else f"assumed, as {convention} files have it"

    def frames() -> Iterator[Frame]:
        frame = None
        try:
            for frame in reader(file, energy_key, forces_key):
                yield _in_ev(frame, IN_EV[unit])
        except DataError:
            raise
        except Exception as error:  # ase.io's readers raise whatever their parser met
            raise DataError(f"{file}: cannot be read as {convention} ({type(error).__name__}: {error})") from error
        if frame is None:
            raise DataError(f"{file}: no frames; expected at least one")

    return OpenedFrames(frames(), file.name, digest, f"Å, {unit}, {unit}/Å ({assumed})")


Reader = Callable[[Path, str | None, str | None], Iterator[Frame]]


def _reader(file: Path) -> tuple[Reader, EnergyUnit, str]:
    if file.suffix == ".npz":
        return _read_npz, "kcal/mol", "MD17 .npz"
    if file.suffix == ".db":
        return _read_db, "eV", "ASE .db"
    return _read_ase, "eV", "ASE"


def _read_npz(file: Path, energy_key: str | None, forces_key: str | None) -> Iterator[Frame]:
    with open(file, "rb") as stream:  # np.load leaves a damaged file open
        try:
            archive = np.load(stream)
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            raise DataError(f"{file}: truncated or not an .npz file ({error})") from error
        z_name, r_name = _first(archive, file, "nuclear_charges", "z"), _first(archive, file, "coords", "R")
        e_name = energy_key or ("energies" if "energies" in archive else "E")
        f_name = forces_key or ("forces" if "forces" in archive else "F")
        numbers, coords = archive[z_name].astype(np.int64), archive[r_name].astype(float)
        energies = archive[e_name].astype(float) if e_name in archive else None
        forces = archive[f_name].astype(float) if f_name in archive else None
    if numbers.ndim != 1:
        raise DataError(f"{file}: {z_name} has shape {numbers.shape}; expected (atoms,)")
    if coords.ndim != 3 or coords.shape[1:] != (len(numbers), 3):
        raise DataError(f"{file}: {r_name} has shape {coords.shape}; expected (frames, {len(numbers)}, 3)")
    for name, labels in ((e_name, energies), (f_name, forces)):
        if labels is not None and len(labels) != len(coords):
            raise DataError(
                f"{file}: {name} has {len(labels)} frames and {r_name} {len(coords)}; "
                f"frame {min(len(labels), len(coords))} is the first without its partner"
            )
    cell, pbc = np.zeros((3, 3)), np.zeros(3, dtype=bool)
    for index, positions in enumerate(coords):
        energy = None if energies is None else _scalar(energies[index], file, index)
        yield Frame(Geometry(numbers, positions, cell, pbc), energy, None if forces is None else forces[index])


def _read_db(file: Path, energy_key: str | None, forces_key: str | None) -> Iterator[Frame]:
    # ASE would make a database of any file it is given; this looks without writing.
    with contextlib.closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'systems'").fetchone():
            raise DataError(f"{file}: not an ASE database (no table of systems)")
    with ase.db.connect(file) as database:
        for index, row in enumerate(_rows(database)):
            # ISO17 keeps its labels as `total_energy` and `atomic_forces`, outside ASE's own columns.
            labels = {**row.key_value_pairs, **row.data}
            energy = labels.get(energy_key or "total_energy", row.get(energy_key or "energy"))
            forces = labels.get(forces_key or "atomic_forces", row.get(forces_key or "forces"))
            geometry = Geometry(row.numbers.astype(np.int64), row.positions, np.asarray(row.cell, float), row.pbc)
            yield Frame(geometry, _scalar(energy, file, index), None if forces is None else np.asarray(forces, float))


def _rows(database: Any) -> Iterator[Any]:
    last = 0
    while rows := list(database.select(f"id>{last}", sort="id", limit=FRAMES_AT_ONCE)):
        yield from rows
        last = rows[-1].id


def _read_ase(file: Path, energy_key: str | None, forces_key: str | None) -> Iterator[Frame]:
    if file.name.endswith((".xyz.gz", ".extxyz.gz")):
        # ASE seeks in the file, and a gzipped one is unpacked from its start every time.
        frames = ase.io.iread(io.StringIO(gzip.decompress(file.read_bytes()).decode()), ":", format="extxyz")
    else:
        frames = ase.io.iread(file, ":")
    for index, atoms in enumerate(frames):
        results = {} if atoms.calc is None else atoms.calc.results
        # ASE moves labels of its own names from the file into a calculator.
        energy = atoms.info.get(energy_key or "energy", results.get(energy_key or "energy"))
        forces = atoms.arrays.get(forces_key or "forces", results.get(forces_key or "forces"))
        yield Frame(
            _geometry(atoms), _scalar(energy, file, index), None if forces is None else np.asarray(forces, float)
        )


def _geometry(atoms: Atoms) -> Geometry:
    return Geometry(atoms.numbers.astype(np.int64), atoms.positions, atoms.cell.array, atoms.pbc)


def _scalar(energy: object, file: Path, index: int) -> float | None:
    if energy is None:
        return None
    value: NDArray[np.float64] = np.asarray(energy, dtype=float)
    if value.size != 1:
        raise DataError(f"{file}: frame {index} has an energy of shape {value.shape}; expected one number")
    return float(value.reshape(()))


def _in_ev(frame: Frame, unit: float) -> Frame:
    energy = None if frame.energy is None else frame.energy * unit
    return Frame(frame.geometry, energy, None if frame.forces is None else frame.forces * unit)


def _first(archive: Mapping[str, object], file: Path, *names: str) -> str:
    for name in names:
        if name in archive:
            return name
    raise DataError(f"{file}: holds {', '.join(archive)}; expected {' or '.join(names)}, as MD17 and rMD17 files do")
