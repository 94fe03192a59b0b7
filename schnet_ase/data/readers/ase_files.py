"""Read what ASE reads: its databases, including ISO17's and SchNetPack's, and files of any of its formats."""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
from ase import Atoms
from ase.io.formats import UnknownFileTypeError, filetype

from schnet_ase.data.labels.keys import OF_CALCULATORS, Found, held_in
from schnet_ase.errors import DataError
from schnet_ase.geometry.system import Geometry

_SIX = re.compile(r"""((?:^|\s)(?:stress|virial)=)(["'{\[])((?:\s*[-+.\deE]+){6}\s*)(["'}\]])""")
FRAMES_AT_ONCE = 1000
"""Number of rows per query of an ASE database, which holds the result of a query in memory."""


def read_db(file: Path) -> Iterator[Found]:
    """Yield the frames of an ASE database.

    ISO17 (Schütt et al., NeurIPS 30, 2017) keeps its labels as `total_energy` and `atomic_forces`, outside ASE's own
    columns. SchNetPack keeps all of its properties in `data`.

    Raises
    ------
    DataError
        The file is no ASE database.
    """
    with _opened(file) as database:
        for row in _rows(database):
            # Copies: the row's own arrays are read-only, and torch warns when it makes tensors of such arrays.
            geometry = Geometry(row.numbers.astype(np.int64), np.array(row.positions), np.array(row.cell), row.pbc)
            own = {name: row[name] for name in OF_CALCULATORS if row.get(name) is not None}
            yield Found(
                geometry,
                (
                    *held_in("row", own, per_atom=None, own=OF_CALCULATORS),
                    *held_in("key_value_pairs", row.key_value_pairs, per_atom=False),
                    *held_in("data", row.data, per_atom=None),
                ),
            )


def metadata_of(file: Path) -> Mapping[str, Any]:
    """Return the metadata of an ASE database; raises as `read_db` does."""
    with _opened(file) as database:
        metadata: dict[str, Any] = database.metadata
        return metadata


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    # ASE would turn any file into a database; this connection only reads.
    with contextlib.closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'systems'").fetchone():
            raise DataError(f"{file}: not an ASE database (no table of systems)")
    with ase.db.connect(file) as database:
        yield database


def _rows(database: Any) -> Iterator[Any]:
    last = 0
    while rows := list(database.select(f"id>{last}", sort="id", limit=FRAMES_AT_ONCE)):
        yield from rows
        last = rows[-1].id


def read_ase(file: Path) -> Iterator[Found]:
    """Yield the frames of a file in any format that ASE knows; extxyz may be gzipped."""
    invented = {"energy"} if invents_energies(file) else set()
    for atoms in _atoms_of(file):
        # ASE moves labels with its own names from the file into a calculator.
        given = {} if atoms.calc is None else atoms.calc.results
        results = {name: value for name, value in given.items() if name not in invented}
        arrays = {name: a for name, a in atoms.arrays.items() if name not in ("numbers", "positions")}
        yield Found(
            Geometry(atoms.numbers.astype(np.int64), atoms.positions, atoms.cell.array, atoms.pbc),
            (
                *held_in("results", results, per_atom=None, own=OF_CALCULATORS),
                *held_in("info", atoms.info, per_atom=False),
                *held_in("arrays", arrays, per_atom=True),
            ),
        )


def invents_energies(file: Path) -> bool:
    """Whether ASE gives the frames of a file an energy of zero that is not in it: LAMMPS's dumps with forces."""
    try:
        return str(filetype(str(file))) == "lammps-dump-text"
    except UnknownFileTypeError:
        return False


def _atoms_of(file: Path) -> Iterator[Atoms]:
    if file.name.endswith((".xyz.gz", ".extxyz.gz")):
        # ASE seeks in the file, and each seek would unpack a gzipped file from its start.
        text = gzip.decompress(file.read_bytes()).decode()
    elif file.suffix.lower() in (".xyz", ".extxyz") and _SIX.search(_header(file)):
        text = file.read_text(encoding="utf-8")
    else:
        yield from ase.io.iread(file, ":")
        return
    yield from ase.io.iread(io.StringIO(_SIX.sub(_nine, text)), ":", format="extxyz")


def _header(file: Path) -> str:
    with open(file, encoding="utf-8", errors="replace") as stream:
        stream.readline()
        return stream.readline()


def _nine(found: re.Match[str]) -> str:
    """Write six numbers in ASE's order as a symmetric matrix, the only form that ASE's reader takes for these keys."""
    xx, yy, zz, yz, xz, xy = found[3].split()
    return f"{found[1]}{found[2]}{xx} {xy} {xz} {xy} {yy} {yz} {xz} {yz} {zz}{found[4]}"
