"""A water trajectory written in every format that is read, and what its reading must give."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import ase.db
import ase.io
import ase.io.jsonio
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db.core import bytes_to_object

from schnet_ase.data import Dataset, read_dataset
from schnet_ase.data.labels.checks import Missing, check_frames
from schnet_ase.errors import DataError

# The definition of the unit: 4184 J, per Avogadro's number of particles, in units of the elementary charge.
KCAL_PER_MOL = 4184.0 / (units._Nav * units._e)
NUMBERS = np.array([8, 1, 1])
N_FRAMES = 4


def labelled_atoms(arrays: dict[str, np.ndarray]) -> list[Atoms]:
    labelled = []
    for positions, energy, forces in zip(arrays["R"], arrays["E"], arrays["F"], strict=True):
        atoms = Atoms(NUMBERS, positions)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        labelled.append(atoms)
    return labelled


def save_rmd17(file: Path, arrays: dict[str, np.ndarray], **changed: np.ndarray) -> Path:
    content = {"coords": arrays["R"], "energies": arrays["E"], "forces": arrays["F"], "nuclear_charges": NUMBERS}
    np.savez(file, **{name: a for name, a in {**content, **changed}.items() if a is not None})
    return file


def save_md17(file: Path, arrays: dict[str, np.ndarray], **changed: np.ndarray) -> Path:
    content = {"R": arrays["R"], "E": arrays["E"][:, None], "F": arrays["F"], "z": NUMBERS}
    np.savez(file, **{name: a for name, a in {**content, **changed}.items() if a is not None})
    return file


def save_db(file: Path, frames: list[Atoms]) -> Path:
    with ase.db.connect(file) as database:
        for atoms in frames:
            database.write(atoms)
    return file


def save_iso17(file: Path, arrays: dict[str, np.ndarray]) -> Path:
    """ISO17's layout: bare atoms, the energy as a key, the forces in `data`."""
    with ase.db.connect(file) as database:
        for positions, energy, forces in zip(arrays["R"], arrays["E"], arrays["F"], strict=True):
            database.write(Atoms(NUMBERS, positions), total_energy=energy, data={"atomic_forces": forces})
    return file


def as_written_in_2017(file: Path) -> Path:
    """A database as ASE wrote it when ISO17 was published: `data` as JSON, not yet binary."""
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        rows = connection.execute("SELECT id, data FROM systems").fetchall()
        encoded = [(ase.io.jsonio.encode(bytes_to_object(data)), number) for number, data in rows]
        connection.executemany("UPDATE systems SET data = ? WHERE id = ?", encoded)
        connection.execute("UPDATE information SET value = '6' WHERE name = 'version'")
    return file


def labels(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    assert all(type(f.energy) is float for f in dataset.frames)
    assert all(f.forces is not None and f.forces.dtype == np.float64 for f in dataset.frames)
    return np.array([f.energy for f in dataset.frames]), np.array([f.forces for f in dataset.frames])


def assert_read(dataset: Dataset, arrays: dict[str, np.ndarray], unit: float) -> None:
    """The frames hold the arrays' numbers, energies and forces times `unit`."""
    assert len(dataset.frames) == N_FRAMES
    energies, forces = labels(dataset)
    np.testing.assert_allclose(energies, arrays["E"] * unit, rtol=1e-14)
    np.testing.assert_allclose(forces, arrays["F"] * unit, rtol=1e-14, atol=1e-14)
    for frame, positions in zip(dataset.frames, arrays["R"], strict=True):
        np.testing.assert_allclose(frame.geometry.positions, positions, rtol=1e-15)
        assert frame.geometry.positions.dtype == np.float64
        np.testing.assert_array_equal(frame.geometry.numbers, NUMBERS)
        assert frame.geometry.numbers.dtype == np.int64
        assert not frame.geometry.pbc.any()
    check_frames(dataset.frames, dataset.source, energies=True, forces=True)


def refused(file: Path, call: Callable[[], object]) -> str:
    """`call` must raise a DataError of one line that names the file; the line."""
    with pytest.raises(DataError) as caught:
        call()
    message = str(caught.value)
    assert file.name in message
    assert len(message.splitlines()) == 1
    return message


def read_refused(file: Path) -> str:
    return refused(file, lambda: read_dataset(file))


def checked(file: Path, *, energies: bool = True, forces: bool = True, **options: str) -> Missing:
    """What a training does with a file."""
    dataset = read_dataset(file, **options)
    return check_frames(dataset.frames, dataset.source, energies=energies, forces=forces, keys=dataset.keys)
