"""Files of reference data to frames in eV and Å. Units are converted here and nowhere else."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

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
IN_EV: Mapping[EnergyUnit, float] = {"eV": 1.0, "kcal/mol": units.kcal / units.mol, "Hartree": units.Hartree}


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
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file}: no such file; expected reference data (.npz, .db, .extxyz, ...)")
    reader, default_unit, convention = _reader(file)
    unit = energy_unit or default_unit
    try:
        frames = [_in_ev(frame, IN_EV[unit]) for frame in reader(file, energy_key, forces_key)]
    except DataError:
        raise
    except Exception as error:  # ase.io's readers raise whatever their parser met
        raise DataError(f"{file}: cannot be read as {convention} ({type(error).__name__}: {error})") from error
    assumed = "as given" if energy_unit else f"assumed, as {convention} files have it"
    return Dataset(frames, file.name, sha256(file), f"Å, {unit}, {unit}/Å ({assumed})")


Reader = Callable[[Path, str | None, str | None], Iterator[Frame]]


def _reader(file: Path) -> tuple[Reader, EnergyUnit, str]:
    if file.suffix == ".npz":
        return _read_npz, "kcal/mol", "MD17 .npz"
    if file.suffix == ".db":
        return _read_db, "eV", "ASE .db"
    return _read_ase, "eV", "ASE"


def _read_npz(file: Path, energy_key: str | None, forces_key: str | None) -> Iterator[Frame]:
    try:
        archive = np.load(file)
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise DataError(f"{file}: truncated or not an .npz file ({error})") from error
    with archive:
        z_name, r_name = _first(archive, file, "nuclear_charges", "z"), _first(archive, file, "coords", "R")
        e_name = energy_key or ("energies" if "energies" in archive else "E")
        f_name = forces_key or ("forces" if "forces" in archive else "F")
        numbers, coords = archive[z_name].astype(np.int64), archive[r_name].astype(float)
        energies = archive[e_name].astype(float) if e_name in archive else None
        forces = archive[f_name].astype(float) if f_name in archive else None
    if coords.ndim != 3 or coords.shape[1:] != (len(numbers), 3):
        raise DataError(f"{file}: {r_name} has shape {coords.shape}; expected (frames, {len(numbers)}, 3)")
    for name, labels in ((e_name, energies), (f_name, forces)):
        if labels is not None and len(labels) != len(coords):
            raise DataError(
                f"{file}: {name} has {len(labels)} frames, {r_name} {len(coords)}: frame {len(labels)} differs"
            )
    cell, pbc = np.zeros((3, 3)), np.zeros(3, dtype=bool)
    for index, positions in enumerate(coords):
        energy = None if energies is None else _scalar(energies[index], file, index)
        yield Frame(Geometry(numbers, positions, cell, pbc), energy, None if forces is None else forces[index])


def _read_db(file: Path, energy_key: str | None, forces_key: str | None) -> Iterator[Frame]:
    with ase.db.connect(file) as database:
        for index, row in enumerate(database.select()):
            # ISO17 keeps its labels as `total_energy` and `atomic_forces`, outside ASE's own columns.
            labels = {**row.key_value_pairs, **row.data}
            energy = labels.get(energy_key or "total_energy", row.get("energy") if energy_key is None else None)
            forces = labels.get(forces_key or "atomic_forces", row.get("forces") if forces_key is None else None)
            geometry = Geometry(row.numbers.astype(np.int64), row.positions, np.asarray(row.cell, float), row.pbc)
            yield Frame(geometry, _scalar(energy, file, index), None if forces is None else np.asarray(forces, float))


def _read_ase(file: Path, energy_key: str | None, forces_key: str | None) -> Iterator[Frame]:
    for index, atoms in enumerate(ase.io.iread(file, ":")):
        results = {} if atoms.calc is None else atoms.calc.results
        energy = atoms.info.get(energy_key) if energy_key else results.get("energy", atoms.info.get("energy"))
        forces = atoms.arrays.get(forces_key) if forces_key else results.get("forces", atoms.arrays.get("forces"))
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
