"""Read systems of DeePMD-kit, folders with ``type.raw`` and arrays (``deepmd/npy``, ``deepmd/npy/mixed``,
``deepmd/raw``).

Zeng et al., Journal of Chemical Physics 159, 054801 (2023). Energies are in eV, forces in eV/Å, and a virial is minus
the stress times the volume, in eV.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from schnet_ase.data.labels.keys import Form, Found, Held
from schnet_ase.errors import DataError
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.geometry.system import Geometry

TYPES, TYPE_MAP, NO_PBC = "type.raw", "type_map.raw", "nopbc"
_OWN: Mapping[str, Form] = {"energy": "energy", "force": "forces", "virial": "virial"}
_OF_SYSTEM = ("coord", "box", "real_atom_types")


def systems_in(folder: Path) -> list[Path]:
    """Return the systems that a folder is or contains, at any depth, in the order of their names."""
    return sorted(file.parent for file in folder.rglob(TYPES))


def files_of_systems(folder: Path) -> list[Path]:
    """Return every file of the systems of a folder, in a reproducible order."""
    files: list[Path] = []
    for system in systems_in(folder):
        named = [system / name for name in (TYPES, TYPE_MAP, NO_PBC)]
        files += [file for file in named if file.is_file()]
        for part in _parts(system):
            files += sorted(part.glob("*.npy" if part != system else "*.raw"))
    return list(dict.fromkeys(files))


def read_deepmd(folder: Path) -> Iterator[Found]:
    """Yield the frames of all systems of a folder, one system after the other.

    Raises
    ------
    DataError
        A file is missing, or differs from the others in the number of frames or atoms.
    """
    for system in systems_in(folder):
        yield from _read_system(system)


def _parts(system: Path) -> list[Path]:
    """Return the folders with arrays: the sets, or the system itself if its arrays are text."""
    return sorted(path for path in system.glob("set.*") if path.is_dir()) or [system]


def _read_system(system: Path) -> Iterator[Found]:
    types = np.loadtxt(system / TYPES, dtype=np.int64, ndmin=1)
    elements = _elements(system)
    for part in _parts(system):
        arrays = {name: array for name in _names(part) if (array := _load(part, name)) is not None}
        if "coord" not in arrays:
            raise DataError(f"{part}: no coord.npy or coord.raw; expected a system of DeePMD-kit")
        n_frames = len(arrays["coord"])
        coords = _shaped(arrays["coord"], (n_frames, len(types), 3), part / "coord")
        cells = _cells(system, part, arrays.get("box"), n_frames)
        mixed = arrays.get("real_atom_types")
        labels = {
            name: _shaped(array, (n_frames, len(types), 3) if name == "force" else (n_frames, -1), part / name)
            for name, array in arrays.items()
            if name not in _OF_SYSTEM
        }
        for k in range(n_frames):
            real = types if mixed is None else mixed[k].astype(np.int64)
            there = real >= 0  # files of mixed types are padded with -1
            numbers = _numbers(real[there], elements, system)
            held = (Held(n, a[k][there] if a.ndim == 3 else a[k], own=_OWN.get(n)) for n, a in labels.items())
            yield Found(Geometry(numbers, coords[k][there], cells[k], np.full(3, cells[k].any())), tuple(held))


def _names(part: Path) -> list[str]:
    arrays = sorted(file.stem for pattern in ("*.npy", "*.raw") for file in part.glob(pattern))
    return [name for name in dict.fromkeys(arrays) if name not in (Path(TYPES).stem, Path(TYPE_MAP).stem)]


def _load(part: Path, name: str) -> Floats | None:
    if (file := part / f"{name}.npy").is_file():
        array: Floats = np.load(file, allow_pickle=False)
        return array
    file = part / f"{name}.raw"
    return np.loadtxt(file, ndmin=2) if name in (*_OF_SYSTEM, *_OWN) and file.is_file() else None


def _shaped(array: Floats, shape: tuple[int, ...], file: Path) -> Floats:
    array = array.reshape(len(array), -1)
    if len(array) == shape[0] and (-1 in shape or array[0].size == np.prod(shape[1:])):
        return array.reshape(shape).astype(float)
    raise DataError(f"{file}: has shape {array.shape}; expected {shape}, the frames and atoms of coord and {TYPES}")


def _cells(system: Path, part: Path, box: Floats | None, n_frames: int) -> Floats:
    if (system / NO_PBC).is_file():
        return np.zeros((n_frames, 3, 3))
    if box is None:
        raise DataError(f"{part}: no box; expected one, or a file {NO_PBC} in {system} for molecules")
    return _shaped(box, (n_frames, 3, 3), part / "box")


def _elements(system: Path) -> list[str]:
    file = system / TYPE_MAP
    if not file.is_file():
        raise DataError(f"{file}: no such file; expected the chemical symbols of the types in {TYPES}, one a line")
    return file.read_text(encoding="utf-8").split()


def _numbers(types: Integers, elements: list[str], system: Path) -> Integers:
    try:
        return np.array([atomic_numbers[elements[t]] for t in types], dtype=np.int64)
    except (KeyError, IndexError) as error:
        raise DataError(f"{system / TYPE_MAP}: {error} is no element of a type in {TYPES}; correct it") from error
