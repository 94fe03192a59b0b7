"""Readers: every format into eV and Å, by whatever names its labels go."""

from __future__ import annotations

import hashlib
import os
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

from schnet_ase.data import read_dataset
from schnet_ase.data.labels.units import ENERGY, parse_unit
from tests.support.trajectories import (
    KCAL_PER_MOL,
    N_FRAMES,
    NUMBERS,
    as_written_in_2017,
    assert_read,
    checked,
    labelled_atoms,
    labels,
    read_refused,
    refused,
    save_db,
    save_iso17,
    save_md17,
    save_rmd17,
)


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
