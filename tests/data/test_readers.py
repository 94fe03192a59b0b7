"""Readers: every format into eV and Å, and every file that cannot be read or trusted refused in one line."""

from __future__ import annotations

import contextlib
import gc
import gzip
import hashlib
import itertools
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import ase.db
import ase.io
import ase.io.jsonio
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db.core import bytes_to_object

from schnet_ase.data import Dataset, read_dataset
from schnet_ase.data.labels.checks import Missing, check_frames
from schnet_ase.data.labels.units import ENERGY, parse_unit
from schnet_ase.errors import DataError
from tests.support.paths import DATA

# The definition of the unit: 4184 J, per Avogadro's number of particles, in units of the elementary charge.
KCAL_PER_MOL = 4184.0 / (units._Nav * units._e)
NUMBERS = np.array([8, 1, 1])
N_FRAMES = 4


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """The numbers of a water trajectory: positions (n, 3, 3), energies (n,), forces (n, 3, 3)."""
    rng = np.random.default_rng(0)
    positions = molecule("H2O").positions + rng.normal(0, 0.05, (N_FRAMES, 3, 3))
    return {"R": positions, "E": rng.normal(-4e4, 5, N_FRAMES), "F": rng.normal(0, 20, (N_FRAMES, 3, 3))}


def labelled_atoms(arrays: dict[str, np.ndarray]) -> list[Atoms]:
    labelled = []
    for positions, energy, forces in zip(arrays["R"], arrays["E"], arrays["F"], strict=True):
        atoms = Atoms(NUMBERS, positions)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        labelled.append(atoms)
    return labelled


@pytest.fixture
def frames(arrays: dict[str, np.ndarray]) -> list[Atoms]:
    """The same trajectory as atoms with labels, taken to be in eV."""
    return labelled_atoms(arrays)


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


# What is read, and in which unit


@pytest.mark.parametrize("layout", [save_rmd17, save_md17])
def test_npz(tmp_path: Path, arrays: dict[str, np.ndarray], layout: Callable[..., Path]) -> None:
    file = layout(tmp_path / "data.npz", arrays)
    dataset = read_dataset(file)
    assert_read(dataset, arrays, KCAL_PER_MOL)
    assert dataset.elements == (1, 8)
    assert dataset.source == "data.npz"
    assert dataset.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_md17_energies_without_a_second_axis(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    assert_read(read_dataset(save_md17(tmp_path / "a.npz", arrays, E=arrays["E"])), arrays, KCAL_PER_MOL)


def test_md17_as_published(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    # What quantum-machine.org's files hold beside the numbers: text, as bytes or str, of no dimension.
    words = {"type": "d", "name": "ethanol", "theory": np.bytes_("PBE+vdW-TS"), "md5": "8b0b1b2fd9eb2d1b3"}
    small = {"z": NUMBERS.astype(np.uint8), **{key: np.array(word) for key, word in words.items()}}
    assert_read(read_dataset(save_md17(tmp_path / "md17_ethanol.npz", arrays, **small)), arrays, KCAL_PER_MOL)


def test_npz_dtypes_of_the_published_files(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    small = {"nuclear_charges": NUMBERS.astype(np.uint8), "forces": arrays["F"].astype(np.float32)}
    dataset = read_dataset(save_rmd17(tmp_path / "a.npz", arrays, **small))
    arrays["F"] = arrays["F"].astype(np.float32).astype(np.float64)
    assert_read(dataset, arrays, KCAL_PER_MOL)


def test_kcal_per_mol() -> None:
    # A calorie is 4.184 J; 1 kcal/mol is 43.364 meV whatever the edition of the constants.
    assert pytest.approx(units.kcal / units.mol, rel=1e-14) == KCAL_PER_MOL
    assert pytest.approx(0.0433641, rel=1e-6) == KCAL_PER_MOL


@pytest.mark.parametrize(("unit", "factor"), [("eV", 1.0), ("kcal/mol", KCAL_PER_MOL), ("Hartree", 2 * units.Rydberg)])
def test_energy_unit_overrides_the_formats_own(
    tmp_path: Path, arrays: dict[str, np.ndarray], frames: list[Atoms], unit: str, factor: float
) -> None:
    ase.io.write(tmp_path / "a.traj", frames)
    for file in (save_rmd17(tmp_path / "a.npz", arrays), save_db(tmp_path / "a.db", frames), tmp_path / "a.traj"):
        dataset = read_dataset(file, energy_unit=unit)
        assert_read(dataset, arrays, factor)
        assert "assumed" not in dataset.units
        assert f"{unit}/Å" in dataset.units


def test_units_say_what_was_assumed(tmp_path: Path, arrays: dict[str, np.ndarray], frames: list[Atoms]) -> None:
    ase.io.write(tmp_path / "a.extxyz", frames)
    files = {
        save_rmd17(tmp_path / "a.npz", arrays): "kcal/mol",
        save_iso17(tmp_path / "a.db", arrays): "eV",
        tmp_path / "a.extxyz": "eV",
    }
    for file, unit in files.items():
        said = read_dataset(file).units
        assert "assumed" in said
        assert f"Å, {unit}, {unit}/Å" in said


def test_unknown_energy_unit_is_named_with_those_known(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    file = save_rmd17(tmp_path / "a.npz", arrays)
    message = refused(file, lambda: read_dataset(file, energy_unit="parsec"))
    assert "parsec" in message
    assert "kcal/mol" in message


@pytest.mark.parametrize("name", ["a.extxyz", "a.xyz", "a.extxyz.gz", "a.xyz.gz", "a.traj", "a.json"])
def test_ase_formats(tmp_path: Path, arrays: dict[str, np.ndarray], name: str) -> None:
    arrays["R"], arrays["F"] = arrays["R"].round(6), arrays["F"].round(6)  # extxyz keeps eight decimals of an array
    frames = labelled_atoms(arrays)
    ase.io.write(tmp_path / name, frames, **({"format": "extxyz"} if "xyz" in name else {}))
    assert_read(read_dataset(tmp_path / name), arrays, 1.0)


def test_labels_of_an_extxyz_file_written_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "a.xyz"
    file.write_text(
        "2\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1.5\nH 0 0 0 0 0 2\nH 0 0 0.8 0 0 -2\n"
        "1\nProperties=species:S:1:pos:R:3 energy=-0.5\nO 0 0 1\n"
    )
    first, second = read_dataset(file).frames
    assert first.energy == -1.5
    np.testing.assert_array_equal(first.forces, [[0, 0, 2], [0, 0, -2]])
    assert second.energy == -0.5
    assert second.forces is None
    assert second.geometry.numbers.tolist() == [8]


def test_periodic_cells_survive(tmp_path: Path, frames: list[Atoms]) -> None:
    atoms = frames[0]
    atoms.cell = [[9.0, 0, 0], [1.5, 8.0, 0], [0, -2.0, 7.0]]
    atoms.pbc = (True, False, True)
    atoms.positions[0] += 20.0  # outside the cell, and to stay there
    ase.io.write(tmp_path / "a.extxyz", atoms)
    for file in (save_db(tmp_path / "a.db", [atoms]), tmp_path / "a.extxyz"):
        (frame,) = read_dataset(file).frames
        np.testing.assert_allclose(frame.geometry.cell, atoms.cell.array, atol=1e-8)
        np.testing.assert_array_equal(frame.geometry.pbc, [True, False, True])
        np.testing.assert_allclose(frame.geometry.positions, atoms.positions, atol=1e-8)


def test_frames_of_several_compositions(tmp_path: Path, frames: list[Atoms]) -> None:
    other = molecule("CH3OH")
    other.calc = SinglePointCalculator(other, energy=-3.0, forces=np.ones((6, 3)))
    ase.io.write(tmp_path / "a.extxyz", [frames[0], other])
    for file in (save_db(tmp_path / "a.db", [frames[0], other]), tmp_path / "a.extxyz"):
        dataset = read_dataset(file)
        assert [len(f.geometry.numbers) for f in dataset.frames] == [3, 6]
        assert dataset.elements == (1, 6, 8)


def test_pattern_of_files(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    """One after the other by name, as if they were one; the hash is of them all."""
    save_rmd17(tmp_path / "b_train.npz", arrays)
    mirrored = {**arrays, "F": -arrays["F"]}
    save_rmd17(tmp_path / "a_train.npz", mirrored)
    save_rmd17(tmp_path / "a_test.npz", arrays)
    dataset = read_dataset(tmp_path / "*_train.npz")
    n = N_FRAMES
    assert len(dataset.frames) == 2 * n
    assert_read(dataset._replace(frames=dataset.frames[:n]), mirrored, KCAL_PER_MOL)
    assert_read(dataset._replace(frames=dataset.frames[n:]), arrays, KCAL_PER_MOL)
    both = (tmp_path / "a_train.npz").read_bytes() + (tmp_path / "b_train.npz").read_bytes()
    assert dataset.sha256 == hashlib.sha256(both).hexdigest()
    assert dataset.source == "*_train.npz"


def test_pattern_of_files_in_different_units(
    tmp_path: Path, arrays: dict[str, np.ndarray], frames: list[Atoms]
) -> None:
    save_rmd17(tmp_path / "a.npz", arrays)
    ase.io.write(tmp_path / "a.extxyz", frames)
    assert "eV, kcal/mol; expected one unit" in read_refused(tmp_path / "a.*")
    assert len(read_dataset(tmp_path / "a.*", energy_unit="eV").frames) == 2 * N_FRAMES


@pytest.mark.parametrize("unit", ["eV", "kcal/mol", "Hartree"])
def test_npz_that_says_its_unit(tmp_path: Path, arrays: dict[str, np.ndarray], unit: str) -> None:
    """As sGDML's tools write it."""
    said = {"e_unit": np.array(unit), "r_unit": np.array("Ang")}
    dataset = read_dataset(save_md17(tmp_path / "a.npz", arrays, **said))
    assert_read(dataset, arrays, parse_unit(unit, ENERGY, "").factor)
    assert dataset.units == f"Å, {unit}, {unit}/Å (as the file says)"


def test_npz_with_objects(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Which are code, and not read."""
    said = {"e_unit": np.array(None)}
    assert "e_unit is an array of Python objects" in read_refused(save_md17(tmp_path / "a.npz", arrays, **said))


@pytest.mark.parametrize("said", [{"e_unit": np.array("Fr")}, {"r_unit": np.array("ell")}])
def test_npz_in_units_that_are_not_read(
    tmp_path: Path, arrays: dict[str, np.ndarray], said: dict[str, np.ndarray]
) -> None:
    message = read_refused(save_md17(tmp_path / "a.npz", arrays, **said))
    assert str(next(iter(said.values()))) in message
    assert "expected a unit of" in message


def test_suffix_in_capitals(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    assert_read(read_dataset(save_md17(tmp_path / "a.npz", arrays).rename(tmp_path / "A.NPZ")), arrays, KCAL_PER_MOL)


def test_pattern_that_no_file_fits(tmp_path: Path) -> None:
    for pattern in ("*.npz", "**.npz"):
        assert "no file fits this pattern" in read_refused(tmp_path / pattern)


def test_file_whose_name_looks_like_a_pattern(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    save_rmd17(tmp_path / "run[1].npz", arrays)
    save_rmd17(tmp_path / "run1.npz", arrays)
    assert len(read_dataset(tmp_path / "run[1].npz").frames) == N_FRAMES


def test_db_with_ases_own_labels(tmp_path: Path, arrays: dict[str, np.ndarray], frames: list[Atoms]) -> None:
    assert_read(read_dataset(save_db(tmp_path / "a.db", frames)), arrays, 1.0)


def test_db_with_iso17_labels(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    assert_read(read_dataset(save_iso17(tmp_path / "iso17.db", arrays)), arrays, 1.0)


@pytest.mark.parametrize("name", ["reference", "reference_eq", "test_within", "test_other", "test_eq"])
def test_iso17_as_published(tmp_path: Path, arrays: dict[str, np.ndarray], name: str) -> None:
    file = as_written_in_2017(save_iso17(tmp_path / f"{name}.db", arrays))
    before = file.read_bytes()
    assert b"atomic_forces" in before
    assert_read(read_dataset(file), arrays, 1.0)
    assert file.read_bytes() == before


def test_db_of_more_frames_than_are_asked_for_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schnet_ase.data.readers.ase_files.FRAMES_AT_ONCE", 3)
    rng = np.random.default_rng(0)
    energies = rng.normal(size=10)
    with ase.db.connect(tmp_path / "a.db") as database:
        for energy in energies:
            database.write(Atoms("H"), total_energy=energy)
        database.delete([2, 3, 4, 5, 9])
    dataset = read_dataset(tmp_path / "a.db")
    assert [f.energy for f in dataset.frames] == energies[[0, 5, 6, 7, 9]].tolist()


@pytest.mark.parametrize("suffix", ["extxyz", "db", "npz", "traj"])
def test_arrays_may_become_tensors(
    tmp_path: Path, arrays: dict[str, np.ndarray], frames: list[Atoms], suffix: str
) -> None:
    file = tmp_path / f"a.{suffix}"
    if suffix == "npz":
        save_rmd17(file, arrays)
    elif suffix == "db":
        save_iso17(file, arrays)
    else:
        ase.io.write(file, frames)
    for frame in read_dataset(file).frames:
        assert frame.forces is not None
        for array in (frame.geometry.numbers, frame.geometry.positions, frame.geometry.cell, frame.forces):
            assert array.flags.writeable


def test_db_with_both_labels_as_data(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    with ase.db.connect(tmp_path / "a.db") as database:
        for positions, energy, forces in zip(arrays["R"], arrays["E"], arrays["F"], strict=True):
            data = {"total_energy": np.array([energy]), "atomic_forces": forces}
            database.write(Atoms(NUMBERS, positions), data=data)
    assert_read(read_dataset(tmp_path / "a.db"), arrays, 1.0)


def test_db_with_labels_of_other_names(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    with ase.db.connect(tmp_path / "a.db") as database:
        for positions, energy, forces in zip(arrays["R"], arrays["E"], arrays["F"], strict=True):
            database.write(Atoms(NUMBERS, positions), pbe_energy=energy, data={"pbe_forces": forces})
    assert_read(read_dataset(tmp_path / "a.db", energy_key="pbe_energy", forces_key="pbe_forces"), arrays, 1.0)


def test_db_frames_without_labels(tmp_path: Path, frames: list[Atoms]) -> None:
    frames[1].calc = None
    file = save_db(tmp_path / "a.db", frames)
    dataset = read_dataset(file)
    assert [f.energy is None for f in dataset.frames] == [f.forces is None for f in dataset.frames]
    assert [f.energy is None for f in dataset.frames] == [False, True, False, False]
    assert checked(file).line("a.db") == (
        "a.db: of 4 frames 1 lacks an energy, 1 lacks forces; 1 has no label that is needed and counts for nothing"
    )


def test_reading_a_db_writes_nothing(tmp_path: Path, frames: list[Atoms]) -> None:
    file = save_db(tmp_path / "a.db", frames)
    before, names = file.read_bytes(), sorted(os.listdir(tmp_path))
    read_dataset(file)
    assert file.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == names


def test_npz_with_labels_of_other_names(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    old = {"old_energies": arrays["E"] + 3.0, "old_forces": -arrays["F"]}
    file = save_rmd17(tmp_path / "a.npz", arrays, **old)
    both = read_dataset(file, energy_key="old_energies", forces_key="old_forces")
    assert_read(both, {**arrays, "E": old["old_energies"], "F": old["old_forces"]}, KCAL_PER_MOL)
    assert_read(read_dataset(file, forces_key="old_forces"), {**arrays, "F": old["old_forces"]}, KCAL_PER_MOL)


@pytest.mark.parametrize("default_labels_too", [True, False])
def test_extxyz_with_labels_of_other_names(
    tmp_path: Path, arrays: dict[str, np.ndarray], frames: list[Atoms], default_labels_too: bool
) -> None:
    arrays["R"], arrays["F"] = arrays["R"].round(6), arrays["F"].round(6)
    for atoms, positions, energy, forces in zip(frames, arrays["R"], arrays["E"], arrays["F"], strict=True):
        atoms.positions = positions
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = energy, forces
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.ones((3, 3))) if default_labels_too else None
    ase.io.write(tmp_path / "a.extxyz", frames)
    dataset = read_dataset(tmp_path / "a.extxyz", energy_key="REF_energy", forces_key="REF_forces")
    assert_read(dataset, arrays, 1.0)


@pytest.mark.parametrize("suffix", ["extxyz", "db", "npz"])
def test_the_formats_own_names_may_be_given(
    tmp_path: Path, arrays: dict[str, np.ndarray], frames: list[Atoms], suffix: str
) -> None:
    # What a user reads in the file, `energy=-3.0 ... forces:R:3`, is what they will give as keys.
    file, names = tmp_path / f"a.{suffix}", ("energy", "forces")
    if suffix == "npz":
        save_rmd17(file, arrays)
        names = ("energies", "forces")
    else:
        ase.io.write(file, frames)
    expected = read_dataset(file)
    dataset = read_dataset(file, energy_key=names[0], forces_key=names[1])
    checked(file, energy_key=names[0], forces_key=names[1])
    for read, wanted in zip(labels(dataset), labels(expected), strict=True):
        np.testing.assert_array_equal(read, wanted)


@pytest.mark.parametrize("suffix", ["extxyz", "db", "npz"])
def test_misspelled_keys_are_not_replaced_by_other_labels(
    tmp_path: Path, arrays: dict[str, np.ndarray], frames: list[Atoms], suffix: str
) -> None:
    file = tmp_path / f"a.{suffix}"
    if suffix == "npz":
        save_rmd17(file, arrays)
    else:
        ase.io.write(file, frames)
    assert "no frame has an energy 'REF_enrgy'" in refused(file, lambda: read_dataset(file, energy_key="REF_enrgy"))
    assert "no frame has forces 'REF_frces'" in refused(file, lambda: read_dataset(file, forces_key="REF_frces"))


def test_paths_may_be_strings(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    assert_read(read_dataset(str(save_rmd17(tmp_path / "a.npz", arrays))), arrays, KCAL_PER_MOL)


# Files that cannot be read


@pytest.mark.parametrize("name", ["a.npz", "a.db", "a.extxyz", "a.xyz.gz", "no suffix"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    assert "no such file" in read_refused(tmp_path / name)
    assert os.listdir(tmp_path) == [], "looking for a file must not make one"


def test_folder_instead_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.npz").mkdir()
    read_refused(tmp_path / "a.npz")


@pytest.mark.parametrize("kept", [0, 1, 10, 0.5, 0.9, -1])
def test_truncated_npz(tmp_path: Path, arrays: dict[str, np.ndarray], kept: float) -> None:
    file = save_rmd17(tmp_path / "a.npz", arrays)
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content)) if 0 < kept < 1 else int(kept)])
    read_refused(file)
    gc.collect()  # A file that the reader left open warns here, and not in some other test.


def test_damaged_npz(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    file = save_rmd17(tmp_path / "a.npz", arrays)
    content = bytearray(file.read_bytes())
    content[content.index(arrays["F"].tobytes()) + 5] ^= 1
    file.write_bytes(content)
    read_refused(file)


@pytest.mark.parametrize("kept", [5, 50, 1000, 4096, 0.5])
def test_truncated_db(tmp_path: Path, frames: list[Atoms], kept: float) -> None:
    file = save_db(tmp_path / "a.db", frames)
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content)) if kept < 1 else int(kept)])
    read_refused(file)


def test_empty_db(tmp_path: Path) -> None:
    # SQLite takes an empty file for an empty database, and ASE would fill it with its tables.
    file = tmp_path / "a.db"
    file.write_bytes(b"")
    read_refused(file)
    assert file.read_bytes() == b""


def test_sqlite_database_of_another_program(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE notes (text)")
    connection.commit()
    connection.close()
    before = file.read_bytes()
    read_refused(file)
    assert file.read_bytes() == before, "another program's file was changed by reading it"


@pytest.mark.parametrize("lines", [1, 2, 4])
def test_truncated_extxyz(tmp_path: Path, frames: list[Atoms], lines: int) -> None:
    file = tmp_path / "a.extxyz"
    ase.io.write(file, frames)
    file.write_text("".join(file.read_text().splitlines(keepends=True)[: 5 + lines]))
    read_refused(file)


def test_extxyz_that_ends_in_a_line(tmp_path: Path, frames: list[Atoms]) -> None:
    file = tmp_path / "a.extxyz"
    ase.io.write(file, frames)
    file.write_text(file.read_text()[:-30])
    read_refused(file)


def test_empty_extxyz(tmp_path: Path) -> None:
    (tmp_path / "a.extxyz").write_bytes(b"")
    read_refused(tmp_path / "a.extxyz")


@pytest.mark.parametrize("kept", [0, 5, 0.5, -1])
def test_truncated_gz(tmp_path: Path, frames: list[Atoms], kept: float) -> None:
    file = tmp_path / "a.extxyz.gz"
    ase.io.write(file, frames, format="extxyz")
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content)) if 0 < kept < 1 else int(kept)])
    read_refused(file)


FOREIGN = {"text": b"two words\nand more\n" * 50, "random": np.random.default_rng(0).bytes(2000), "zeros": bytes(5000)}


@pytest.mark.parametrize("name", ["a.npz", "a.db", "a.extxyz", "a.xyz", "a.extxyz.gz", "a.traj", "a.dat", "a.toml"])
@pytest.mark.parametrize("content", list(FOREIGN))
def test_foreign_file(tmp_path: Path, name: str, content: str) -> None:
    file = tmp_path / name
    file.write_bytes(FOREIGN[content])
    read_refused(file)
    assert file.read_bytes() == FOREIGN[content]


@pytest.mark.parametrize("name", ["a.npz", "a.db", "a.extxyz", "a.extxyz.gz", "a.traj"])
def test_refused_file_is_closed(tmp_path: Path, frames: list[Atoms], name: str) -> None:
    # The ResourceWarning of a file that was left open is an error here.
    file = tmp_path / name
    if name == "a.npz":
        np.savez(file, weights=np.ones(3))
    else:
        ase.io.write(file, frames, **({"format": "extxyz"} if "xyz" in name else {}))
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2 - 40])
    read_refused(file)
    gc.collect()


def test_gzipped_npz_under_the_name_of_an_extxyz_file(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    file = tmp_path / "a.extxyz.gz"
    file.write_bytes(gzip.compress(save_rmd17(tmp_path / "a.npz", arrays).read_bytes()))
    read_refused(file)


def test_npz_of_another_program_says_what_it_holds(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", weights=np.ones(3), bias=np.ones(1))
    message = read_refused(tmp_path / "a.npz")
    assert "weights" in message
    assert "nuclear_charges" in message


def test_npy_under_the_name_of_an_npz_file(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as stream:
        np.save(stream, np.ones(3))
    read_refused(tmp_path / "a.npz")


class MakesFolder:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_pickled_objects_in_an_npz_do_not_run(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    mark = tmp_path / "code was run"
    payload = np.empty(N_FRAMES, dtype=object)
    payload[:] = [MakesFolder(mark)] + [0.0] * (N_FRAMES - 1)
    file = save_rmd17(tmp_path / "a.npz", arrays, energies=payload)
    with np.load(file, allow_pickle=True) as archive:
        archive["energies"]
    assert mark.exists(), "the payload would not have run anyway"
    mark.rmdir()
    read_refused(file)
    assert not mark.exists()


# Labels that cannot be trusted


@pytest.mark.parametrize(
    "coords",
    [np.zeros((N_FRAMES, 2, 3)), np.zeros((N_FRAMES, 3, 2)), np.zeros((N_FRAMES, 9)), np.zeros((3, 3)), np.zeros(())],
    ids=lambda a: str(a.shape),
)
def test_npz_positions_of_the_wrong_shape(tmp_path: Path, arrays: dict[str, np.ndarray], coords: np.ndarray) -> None:
    message = read_refused(save_rmd17(tmp_path / "a.npz", arrays, coords=coords))
    assert "(frames, 3, 3)" in message
    assert str(coords.shape) in message


@pytest.mark.parametrize("shape", [(3, 3), (3, 1), ()], ids=str)
def test_npz_numbers_of_the_wrong_shape(tmp_path: Path, arrays: dict[str, np.ndarray], shape: tuple[int, ...]) -> None:
    # As many frames as atoms, so that numbers repeated for every frame could pass for one molecule's.
    square = {name: a[:3] for name, a in arrays.items()}
    numbers = np.broadcast_to(NUMBERS if len(shape) == 2 and shape[1] == 3 else 1, shape)
    message = read_refused(save_rmd17(tmp_path / "a.npz", square, nuclear_charges=numbers))
    assert "nuclear_charges" in message


@pytest.mark.parametrize("shape", [(N_FRAMES, 2), (N_FRAMES, 3), (N_FRAMES, 0)], ids=str)
def test_npz_energies_of_the_wrong_shape(tmp_path: Path, arrays: dict[str, np.ndarray], shape: tuple[int, int]) -> None:
    assert "frame 0" in read_refused(save_rmd17(tmp_path / "a.npz", arrays, energies=np.ones(shape)))


@pytest.mark.parametrize("name", ["energies", "forces"])
@pytest.mark.parametrize("count", [0, N_FRAMES - 1, N_FRAMES + 1])
def test_npz_labels_of_another_number_of_frames(
    tmp_path: Path, arrays: dict[str, np.ndarray], name: str, count: int
) -> None:
    shape = (count, 3, 3) if name == "forces" else (count,)
    message = read_refused(save_rmd17(tmp_path / "a.npz", arrays, **{name: np.ones(shape)}))
    assert name in message
    assert f"frame {min(count, N_FRAMES)}" in message


@pytest.mark.parametrize(
    "shape", [(N_FRAMES,), (N_FRAMES, 3), (N_FRAMES, 9), (N_FRAMES, 3, 2), (N_FRAMES, 2, 3)], ids=str
)
def test_npz_forces_of_the_wrong_shape(tmp_path: Path, arrays: dict[str, np.ndarray], shape: tuple[int, ...]) -> None:
    file = save_rmd17(tmp_path / "a.npz", arrays, forces=np.ones(shape))
    message = refused(file, lambda: checked(file))
    assert "frame 0" in message
    assert "expected (3, 3)" in message


@pytest.mark.parametrize("key", ["energy", "forces"])
def test_npz_without_labels(tmp_path: Path, arrays: dict[str, np.ndarray], key: str) -> None:
    file = save_md17(tmp_path / "a.npz", arrays, **{{"energy": "E", "forces": "F"}[key]: None})
    message = refused(file, lambda: checked(file))
    assert f"no frame has {'an energy' if key == 'energy' else 'forces'}" in message
    checked(file, energies=key != "energy", forces=key != "forces")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["coords", "energies", "forces"])
def test_npz_with_a_number_that_is_none(tmp_path: Path, arrays: dict[str, np.ndarray], name: str, bad: float) -> None:
    array = {"coords": arrays["R"], "energies": arrays["E"], "forces": arrays["F"]}[name]
    array[(2, 1, 0) if array.ndim == 3 else 2] = bad
    file = save_rmd17(tmp_path / "a.npz", arrays)
    assert "frame 2" in refused(file, lambda: checked(file))


def test_npz_with_a_frame_of_zero_forces(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    arrays["F"][3] = 0.0
    checked(save_rmd17(tmp_path / "a.npz", arrays))
    arrays["F"][:] = 0.0
    file = save_rmd17(tmp_path / "b.npz", arrays)
    assert "4 of 4 frames, frame 0 first, have forces that are all zero" in refused(file, lambda: checked(file))


def test_npz_with_all_energies_zero(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    arrays["E"][:] = 0.0
    file = save_rmd17(tmp_path / "a.npz", arrays)
    assert "frame 0" in refused(file, lambda: checked(file))


def test_npz_without_frames(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    file = save_rmd17(tmp_path / "a.npz", {name: a[:0] for name, a in arrays.items()})
    assert "no frames" in refused(file, lambda: checked(file))


def test_extxyz_frame_without_energy(tmp_path: Path, frames: list[Atoms]) -> None:
    del frames[2].calc.results["energy"]
    ase.io.write(tmp_path / "a.extxyz", frames)
    assert checked(tmp_path / "a.extxyz").line("a.extxyz") == "a.extxyz: of 4 frames 1 lacks an energy"


def test_extxyz_frame_without_forces(tmp_path: Path, frames: list[Atoms]) -> None:
    del frames[2].calc.results["forces"]
    ase.io.write(tmp_path / "a.extxyz", frames)
    assert checked(tmp_path / "a.extxyz").line("a.extxyz") == "a.extxyz: of 4 frames 1 lacks forces"


@pytest.mark.parametrize("suffix", ["extxyz", "db"])
def test_energies_that_are_not_one_number(tmp_path: Path, frames: list[Atoms], suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    if suffix == "extxyz":
        for k, atoms in enumerate(frames):
            atoms.info["REF"] = np.ones(2) if k == 1 else 1.0
        ase.io.write(file, frames)
    else:
        with ase.db.connect(file) as database:
            for k, atoms in enumerate(frames):
                database.write(atoms, data={"REF": np.ones(2) if k == 1 else 1.0})
    assert "frame 1" in refused(file, lambda: read_dataset(file, energy_key="REF"))


@pytest.mark.parametrize("suffix", ["extxyz", "db"])
def test_labels_that_are_words(tmp_path: Path, frames: list[Atoms], suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    if suffix == "extxyz":
        for atoms in frames:
            atoms.info["REF"] = "not converged"
        ase.io.write(file, frames)
    else:
        with ase.db.connect(file) as database:
            for atoms in frames:
                database.write(atoms, REF="not converged")
    refused(file, lambda: read_dataset(file, energy_key="REF"))


def test_db_forces_of_the_wrong_shape(tmp_path: Path, frames: list[Atoms]) -> None:
    file = tmp_path / "a.db"
    with ase.db.connect(file) as database:
        for k, atoms in enumerate(frames):
            forces = np.ones((2, 3)) if k == 1 else np.ones((3, 3))
            database.write(Atoms(atoms.numbers, atoms.positions), total_energy=-1.0, data={"atomic_forces": forces})
    message = refused(file, lambda: checked(file))
    assert "frame 1" in message
    assert "(2, 3)" in message


# Published files


def real(name: str, **options: str) -> Dataset:
    file = DATA / name
    if not file.is_file():
        pytest.skip(f"the data are not there: {file.relative_to(DATA.parents[1])}")
    return read_dataset(file, **options)


def energies_of(dataset: Dataset) -> np.ndarray:
    return np.array([f.energy for f in dataset.frames])


def isolated(dataset: Dataset) -> dict[int, float]:
    energies = {}
    for frame in dataset.frames:
        assert frame.energy is not None
        energies[int(frame.geometry.numbers[0])] = frame.energy
    return energies


def imbalance(vectors: np.ndarray) -> float:
    """How far vectors (N, 3) are from cancelling, between 0 and 1."""
    return float(np.linalg.norm(vectors.sum(axis=0)) / np.linalg.norm(vectors, axis=1).sum())


def torques(positions: np.ndarray, forces: np.ndarray | None) -> np.ndarray:
    """The (N, 3) torques of the atoms about their centre."""
    assert forces is not None
    return np.cross(positions - positions.mean(axis=0), forces)


def assert_forces_of_molecules(dataset: Dataset) -> None:
    """In vacuum neither net force nor torque; a wrong order of frames or atoms would show as a torque."""
    previous = dataset.frames[-1].geometry.positions
    mispaired = []
    for frame in dataset.frames:
        assert frame.forces is not None
        assert imbalance(frame.forces) < 1e-6
        assert imbalance(torques(frame.geometry.positions, frame.forces)) < 1e-3
        mispaired.append(imbalance(torques(previous, frame.forces)))
        previous = frame.geometry.positions
    assert min(mispaired) > 1e-3, "the check would not notice"
    assert 0.5 < rms_force(dataset) < 2.0


def rms_force(dataset: Dataset) -> float:
    return float(np.sqrt(np.mean([np.square(f.forces).mean() for f in dataset.frames if f.forces is not None])))


def test_rmd17_ethanol() -> None:
    dataset = real("rmd17/rmd17_ethanol_train_01.npz")
    assert len(dataset.frames) == 1000
    assert dataset.elements == (1, 6, 8)
    assert "kcal/mol" in dataset.units
    check_frames(dataset.frames, dataset.source, energies=True, forces=True)
    assert all(len(f.geometry.numbers) == 9 and not f.geometry.pbc.any() for f in dataset.frames)
    assert_forces_of_molecules(dataset)
    # At 500 K the 21 vibrations of a harmonic molecule hold 21/2 kT of potential energy.
    energies = energies_of(dataset)
    thermal = 21 / 2 * units.kB * 500
    assert 0.5 * thermal < energies.mean() - energies.min() < 2 * thermal


def test_rmd17_ethanol_against_the_same_level_in_ev() -> None:
    # The scan of a normal mode is in eV at rMD17's level of theory and passes through the minimum.
    minimum = energies_of(real("ethanol/test_norm_mode_874.xyz")).min()
    above = energies_of(real("rmd17/rmd17_ethanol_train_01.npz")) - minimum
    assert above.min() > 0
    # Other calories or constants, by 1e-4 only, would show as 0.4 eV.
    thermal = 21 / 2 * units.kB * 500
    assert thermal < above.mean() < 2 * thermal


def test_rmd17_old_labels() -> None:
    name = "rmd17/rmd17_ethanol_train_01.npz"
    new, old = real(name), real(name, energy_key="old_energies", forces_key="old_forces")
    check_frames(old.frames, old.source, energies=True, forces=True)
    # PBE either way, with another basis and dispersion: alike frame by frame, and unlike any other frame.
    for a, b in zip(labels(new), labels(old), strict=True):
        assert (a != b).all()
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.95
        assert abs(np.corrcoef(a.ravel(), np.roll(b, 1, axis=0).ravel())[0, 1]) < 0.2


def test_ethanol_scan_has_no_forces() -> None:
    dataset = real("ethanol/test_norm_mode_874.xyz")
    check_frames(dataset.frames, dataset.source, energies=True, forces=False)
    with pytest.raises(DataError, match="no frame has forces"):
        check_frames(dataset.frames, dataset.source, energies=False, forces=True)


@pytest.mark.parametrize(
    ("name", "atoms_name", "n_frames", "elements", "n_atoms"),
    [
        ("3bpa/train_300K.xyz", "3bpa/iso_atoms.xyz", 500, (1, 6, 7, 8), 27),
        ("acac/train_300K.xyz", "acac/isolated_atoms.xyz", 500, (1, 6, 8), 15),
    ],
)
def test_molecules_of_botnet(
    name: str, atoms_name: str, n_frames: int, elements: tuple[int, ...], n_atoms: int
) -> None:
    dataset = real(name)
    assert len(dataset.frames) == n_frames
    assert dataset.elements == elements
    check_frames(dataset.frames, dataset.source, energies=True, forces=True)
    assert all(len(f.geometry.numbers) == n_atoms and not f.geometry.pbc.any() for f in dataset.frames)
    assert_forces_of_molecules(dataset)
    energies = energies_of(dataset)
    thermal = (3 * n_atoms - 6) / 2 * units.kB * 300
    assert 0.25 * thermal < energies.mean() - energies.min() < 2 * thermal
    # Bound by a few eV an atom with respect to free atoms.
    free = isolated(real(atoms_name))
    for frame in dataset.frames:
        assert frame.energy is not None
        binding = frame.energy - sum(free[int(z)] for z in frame.geometry.numbers)
        assert -8.0 < binding / n_atoms < -3.0


def test_isolated_atoms() -> None:
    dataset = real("acac/isolated_atoms.xyz")
    check_frames(dataset.frames, dataset.source, energies=True, forces=False)
    free = isolated(dataset)
    assert sorted(free) == [1, 6, 8]
    assert free[1] == pytest.approx(-units.Rydberg, rel=0.02)  # hydrogen is known exactly


def test_water(tmp_path: Path) -> None:
    source = DATA / "water" / "water_192_pbe0ts.extxyz.gz"
    if not source.is_file():
        pytest.skip("the data are not there: shared/data/water")
    n_frames, n_atoms = 8, 192
    with gzip.open(source, "rb") as stream:  # all 320 frames take long
        part = b"".join(itertools.islice(stream, n_frames * (n_atoms + 2)))
    (tmp_path / "water.extxyz.gz").write_bytes(gzip.compress(part))
    dataset = read_dataset(tmp_path / "water.extxyz.gz")
    assert len(dataset.frames) == n_frames
    assert dataset.elements == (1, 8)
    check_frames(dataset.frames, dataset.source, energies=True, forces=True)
    assert 0.5 < rms_force(dataset) < 2.0
    assert np.ptp(energies_of(dataset)) < 10.0
    # The eight valence electrons of water, which is what pseudopotentials leave, hold -17.2 Hartree.
    assert energies_of(dataset).mean() / 64 == pytest.approx(-17.2 * units.Hartree, rel=0.01)
    for frame in dataset.frames:
        assert frame.geometry.pbc.all()
        volume = abs(np.linalg.det(frame.geometry.cell))
        density = 64 * 18.015 / (units._Nav * 1e-24) / volume  # g/cm³
        assert 0.9 < density < 1.1
        assert frame.forces is not None
        assert imbalance(frame.forces) < 1e-2
