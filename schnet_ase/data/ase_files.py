"""What ASE reads: its databases, ISO17's among them, and files of any of its formats."""

from __future__ import annotations

import contextlib
import gzip
import io
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
from ase import Atoms

from schnet_ase.data.frames import Frame
from schnet_ase.data.labels import scalar
from schnet_ase.errors import DataError
from schnet_ase.neighbors import Geometry

FRAMES_AT_ONCE = 1000
"""That are asked of an ASE database, which holds all that it is asked for in memory."""


def read_db(file: Path, energy_key: str | None, forces_key: str | None) -> Iterator[Frame]:
    """Frames of an ASE database, with ASE's own labels or those of ISO17 (Schütt et al., NeurIPS 30, 2017).

    Raises
    ------
    DataError
        It is none.
    """
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
            # Copies: the row's own arrays are read-only, of which torch makes tensors with a warning.
            geometry = Geometry(row.numbers.astype(np.int64), np.array(row.positions), np.array(row.cell), row.pbc)
            yield Frame(geometry, scalar(energy, file, index), None if forces is None else np.array(forces, float))


def _rows(database: Any) -> Iterator[Any]:
    last = 0
    while rows := list(database.select(f"id>{last}", sort="id", limit=FRAMES_AT_ONCE)):
        yield from rows
        last = rows[-1].id


def read_ase(file: Path, energy_key: str | None, forces_key: str | None) -> Iterator[Frame]:
    """Frames of a file in any format that ASE knows; extxyz may be gzipped."""
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
            _geometry(atoms), scalar(energy, file, index), None if forces is None else np.asarray(forces, float)
        )


def _geometry(atoms: Atoms) -> Geometry:
    return Geometry(atoms.numbers.astype(np.int64), atoms.positions, atoms.cell.array, atoms.pbc)
