"""Read QM9, from the package `qm9pack` or from the raw ``dsgdb9nsd`` files: only energies, in Hartree.

Ramakrishnan et al., Scientific Data 1, 140022 (2014).
"""

from __future__ import annotations

import csv
import importlib.util
import re
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase.data import atomic_numbers

from schnet_ase.data.labels.keys import Found, Held
from schnet_ase.errors import DataError
from schnet_ase.geometry.system import Geometry

PACKAGE = "qm9pack:"
"""Stands for the molecules of the installed package `qm9pack` where a file is expected."""
N_MOLECULES = 133_885
"""3,054 of them are uncharacterized; `qm9pack` has the 130,831 others."""


class _Energy(NamedTuple):
    column: str
    """Name of the column in the package."""
    scalar: int
    """Position in the second line of a raw file, whose first two are ``gdb`` and the molecule's number."""


ENERGIES: Mapping[str, _Energy] = {
    "U0": _Energy("InternalEnergy_0K_au", 12),
    "U": _Energy("InternalEnergy_298K_au", 13),
    "H": _Energy("Enthalphy_298K_au", 14),  # as the package spells it
    "G": _Energy("GibbsFreeEnergy_298K_au", 15),
}
_SCALARS = 17
_RAW_NAME = re.compile(r"dsgdb9nsd_(\d+)\.xyz")
_CELL, _PBC = np.zeros((3, 3)), np.zeros(3, dtype=bool)
_WITHOUT_BRACKETS = str.maketrans("", "", "[]' ")


def is_raw(path: Path) -> bool:
    """Return whether a path can only be raw QM9: a folder, a tar archive, or a single file by its name."""
    return path.is_dir() or ".tar" in path.suffixes[-2:] or _RAW_NAME.fullmatch(path.name) is not None


def package_files() -> list[Path]:
    """Find the tables of the installed package without importing it.

    Raises
    ------
    DataError
        The package is not installed, or has other files.
    """
    found = importlib.util.find_spec("qm9pack")
    if found is None or not found.submodule_search_locations:
        raise DataError(f"{PACKAGE} is not installed; pip install 'schnet_ase[qm9]', or give the raw files")
    folder = Path(found.submodule_search_locations[0]) / "data"
    files = sorted(folder.glob("qm9_part*.csv"))
    if not files:
        raise DataError(f"{PACKAGE} has no tables {folder}/qm9_part*.csv; install qm9pack 1.0.3")
    return files


def raw_files(path: Path) -> list[Path]:
    """Return the raw files of a folder by number, or the file or archive `path` itself.

    Raises
    ------
    DataError
        The folder has none.
    """
    if not path.is_dir():
        return [path]
    numbered = [(int(match[1]), file) for file in path.iterdir() if (match := _RAW_NAME.fullmatch(file.name))]
    if not numbered:
        raise DataError(
            f"{path}: a folder without dsgdb9nsd_*.xyz or type.raw; expected the raw files of QM9, a system of "
            "DeePMD-kit, or a file"
        )
    return [file for _, file in sorted(numbered)]


def read_package(files: Iterable[Path], energy_key: str | None, excluded: Collection[int]) -> Iterator[Found]:
    """Yield the molecules of the package's tables, in Hartree and Å.

    Parameters
    ----------
    files
        Result of `package_files`.
    energy_key
        ``"U0"`` (the default), ``"U"``, ``"H"`` or ``"G"``, or the package's name of one.
    excluded
        Numbers of molecules to leave out.

    Raises
    ------
    DataError
        There is no such energy, or a table lacks the columns.
    """
    by_column = {energy.column: energy.column for energy in ENERGIES.values()}
    column = by_column.get(energy_key or "") or _energy(energy_key).column
    for file in files:
        with open(file, newline="", encoding="utf-8") as stream:
            rows = csv.reader(stream)
            header = next(rows, [])
            try:
                number, symbols, xyz, energy = (header.index(c) for c in ("Index", "Elements", "XYZ_Ang", column))
            except ValueError as error:
                raise DataError(f"{PACKAGE} {file.name}: {error}; install qm9pack 1.0.3") from error
            for row in rows:
                if int(row[number]) not in excluded:
                    names = row[symbols].translate(_WITHOUT_BRACKETS).split(",")
                    positions = np.array([*map(float, row[xyz].translate(_WITHOUT_BRACKETS).split(","))])
                    yield _frame(names, positions.reshape(-1, 3), float(row[energy]), energy_key or "U0")


def read_raw(path: Path, energy_key: str | None, excluded: Collection[int]) -> Iterator[Found]:
    """Yield the molecules of raw files, in Hartree and Å; other parameters and errors as in `read_package`.

    Parameters
    ----------
    path
        A folder of ``dsgdb9nsd_*.xyz``, read by number; a tar archive of them, read in its own order; or one file.
    """
    _energy(energy_key)
    for name, number, text in _texts(path, excluded):
        try:
            yield _molecule(text, number, energy_key or "U0")
        except (ValueError, IndexError, KeyError) as error:
            raise DataError(f"{path}: {name} is not a raw QM9 file ({error})") from error


def read_excluded(file: Path) -> frozenset[int]:
    """Read the numbers in the data set's own ``uncharacterized.txt``, or in a file with one number per line.

    Raises
    ------
    DataError
        The file is missing, or is neither.
    """
    try:
        lines = file.read_text(encoding="utf-8").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as a list of molecules to leave out ({error})") from error
    if not all(line.strip().isdigit() for line in lines):
        lines = lines[9:-1]  # nine lines of header, rows that begin with the number, a line with the count
    numbers = [line.split()[0] if line.strip() else "" for line in lines]
    if not numbers or not all(n.isdigit() and 1 <= int(n) <= N_MOLECULES for n in numbers):
        raise DataError(
            f"{file}: not a list of molecules to leave out; expected QM9's uncharacterized.txt, or one number "
            f"between 1 and {N_MOLECULES} a line"
        )
    return frozenset(int(n) for n in numbers)


def _energy(key: str | None) -> _Energy:
    try:
        return ENERGIES[key or "U0"]
    except KeyError as error:
        raise DataError(f"QM9: energy_key is {key!r}; expected one of {', '.join(ENERGIES)}") from error


def _texts(path: Path, excluded: Collection[int]) -> Iterator[tuple[str, int, str]]:
    """Yield the name, number and content of each file."""
    if ".tar" not in path.suffixes[-2:]:
        for file in raw_files(path):
            number = _number(file.name)
            if number not in excluded:
                yield file.name, number, file.read_text(encoding="utf-8")
        return
    any_file = False
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            name = Path(member.name).name
            if member.isfile() and _RAW_NAME.fullmatch(name):
                any_file = True
                stream = archive.extractfile(member)
                assert stream is not None
                if _number(name) not in excluded:
                    yield name, _number(name), stream.read().decode()
    if not any_file:
        raise DataError(f"{path}: an archive without dsgdb9nsd_*.xyz; expected the raw files of QM9 in it")


def _number(name: str) -> int:
    match = _RAW_NAME.fullmatch(name)
    assert match is not None
    return int(match[1])


def _molecule(text: str, number: int, key: str) -> Found:
    # Mathematica wrote the numbers: 6.3*^-6 is 6.3e-6.
    lines = text.replace("*^", "e").splitlines()
    n_atoms, scalars = int(lines[0]), lines[1].split()
    if scalars[:2] != ["gdb", str(number)] or len(scalars) != _SCALARS:
        raise ValueError(f"its second line begins with {' '.join(scalars[:2])!r} and has {len(scalars)} fields")
    atoms = [line.split() for line in lines[2 : 2 + n_atoms]]
    if len(atoms) != n_atoms or any(len(atom) != 5 for atom in atoms):
        raise ValueError(f"expected {n_atoms} lines of an element, a position and a charge")
    return _frame(
        [a[0] for a in atoms], np.array([a[1:4] for a in atoms], dtype=float), float(scalars[_energy(key).scalar]), key
    )


def _frame(names: list[str], positions: np.ndarray, energy: float, key: str) -> Found:
    numbers = np.array([atomic_numbers[name] for name in names], dtype=np.int64)
    return Found(Geometry(numbers, positions, _CELL, _PBC), (Held(key, energy, own="energy"),))
