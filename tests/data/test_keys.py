"""Which of the things that a file holds is the label: its own names, names that say so, two that differ, none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from schnet_ase.data import read_dataset, stored_dataset
from schnet_ase.data.labels.checks import check_frames
from schnet_ase.data.labels.keys import meaning
from schnet_ase.errors import DataError

FORCES = np.array([[0.1, -0.2, 0.3], [0.0, 0.25, -0.5], [-0.1, -0.05, 0.2]])


def water(**results: Any) -> Atoms:
    atoms = molecule("H2O")
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def refused(file: Path, **options: str) -> str:
    with pytest.raises(DataError) as caught:
        read_dataset(file, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert file.name in message
    return message


@pytest.mark.parametrize(
    "name",
    ["REF_energy", "ref_energy", "dft_energy", "DFT_energy", "dft_total_energy", "Energy", "total_energy", "TotEnergy"],
)
def test_names_of_energies(name: str) -> None:
    assert meaning(name) is not None
    assert meaning(name).form == "energy"
    assert meaning(name).known


@pytest.mark.parametrize(
    "name",
    [
        "kinetic_energy",
        "formation_energy",
        "energy_per_atom",
        "energy_std",
        "old_energies",
        "config_energy_weight",
        "atomic_energies",
        "dispersion_energy",
        "energy_unit",
        "E",
        "charge",
        "virial_stress",
    ],
)
def test_names_that_are_no_label(name: str) -> None:
    assert meaning(name) is None


@pytest.mark.parametrize(
    ("energy", "forces"),
    [
        ("REF_energy", "REF_forces"),
        ("dft_energy", "dft_forces"),
        ("Energy", "force"),
        ("qm_energy", "qm_force"),
        ("pbe_energy", "pbe_forces"),
        ("energy_wb97m", "forces_wb97m"),
        ("total_energy", "Forces"),
    ],
)
def test_labels_by_names_that_say_so(tmp_path: Path, energy: str, forces: str) -> None:
    atoms = water()
    atoms.info[energy], atoms.arrays[forces] = -3.5, FORCES
    atoms.info.update(charge=0, kinetic_energy=1.0)
    ase.io.write(tmp_path / "a.extxyz", atoms)
    dataset = read_dataset(tmp_path / "a.extxyz")
    assert dataset.frames[0].energy == -3.5
    np.testing.assert_array_equal(dataset.frames[0].forces, FORCES)
    assert dataset.labels == (
        f"labels: energy from info['{energy}'] (eV, assumed), forces from arrays['{forces}'] (eV/Å, assumed)"
    )
    assert dataset.keys == (f"info['{energy}']", "info['charge']", "info['kinetic_energy']", f"arrays['{forces}']")


@pytest.mark.parametrize("name", ["gradient", "dft_total_gradient", "REF_gradients"])
def test_a_gradient_is_minus_the_forces(tmp_path: Path, name: str) -> None:
    atoms = water()
    atoms.info["energy"], atoms.arrays[name] = -3.5, -FORCES
    ase.io.write(tmp_path / "a.extxyz", atoms)
    for options in ({}, {"forces_key": name}):
        dataset = read_dataset(tmp_path / "a.extxyz", **options)
        np.testing.assert_array_equal(dataset.frames[0].forces, FORCES)
        assert f"forces from arrays['{name}'], a gradient (eV/Å, assumed)" in dataset.labels


def test_what_was_read_is_said(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.traj", water(energy=-1.0, forces=FORCES))
    dataset = read_dataset(tmp_path / "a.traj", energy_unit="kcal/mol")
    assert dataset.labels == (
        "labels: energy from results['energy'] (kcal/mol, as given), "
        "forces from results['forces'] (kcal/mol/Å, as given)"
    )
    stored = stored_dataset(tmp_path / "a.traj", 5.0)
    assert stored.labels == read_dataset(tmp_path / "a.traj").labels
    assert stored.keys == ("results['energy']", "results['forces']")


def test_traj_with_another_energy_in_info(tmp_path: Path) -> None:
    atoms = water(energy=-1.0, forces=FORCES)
    atoms.info["energy"] = -99.0
    ase.io.write(tmp_path / "a.traj", atoms)
    said = refused(tmp_path / "a.traj")
    assert "frame 0: energy results['energy'] and info['energy'] differ (-1 and -99 eV); name one by energy_key" in said
    for key, energy in (("energy", -1.0), ("results['energy']", -1.0), ("info['energy']", -99.0)):
        assert read_dataset(tmp_path / "a.traj", energy_key=key).frames[0].energy == energy
    atoms.info["energy"] = -1.0
    ase.io.write(tmp_path / "b.traj", atoms)
    assert read_dataset(tmp_path / "b.traj").frames[0].energy == -1.0


def test_db_with_a_key_beside_the_rows_own_energy(tmp_path: Path) -> None:
    with ase.db.connect(tmp_path / "a.db") as database:
        database.write(water(energy=-1.0, forces=FORCES), total_energy=-2.0)
    said = refused(tmp_path / "a.db")
    assert "row['energy'] and key_value_pairs['total_energy'] differ (-1 and -2 eV)" in said
    assert read_dataset(tmp_path / "a.db", energy_key="total_energy").frames[0].energy == -2.0
    assert read_dataset(tmp_path / "a.db", energy_key="energy").frames[0].energy == -1.0
    with ase.db.connect(tmp_path / "b.db") as database:
        database.write(water(energy=-1.0, forces=FORCES), total_energy=-1.0, data={"forces": FORCES})
    assert read_dataset(tmp_path / "b.db").frames[0].energy == -1.0
    with ase.db.connect(tmp_path / "c.db") as database:
        database.write(water(energy=-1.0, forces=FORCES), data={"forces": -FORCES})
    assert "forces row['forces'] and data['forces'] differ" in refused(tmp_path / "c.db")


def test_two_labels_of_one_kind(tmp_path: Path) -> None:
    atoms = water()
    atoms.info.update(REF_energy=-3.0, dft_energy=-4.0)
    ase.io.write(tmp_path / "a.extxyz", atoms)
    assert "info['REF_energy'] and info['dft_energy'] differ (-3 and -4 eV)" in refused(tmp_path / "a.extxyz")
    assert read_dataset(tmp_path / "a.extxyz", energy_key="dft_energy").frames[0].energy == -4.0
    atoms.info.update(dft_energy=-3.0)
    ase.io.write(tmp_path / "b.extxyz", atoms)
    assert read_dataset(tmp_path / "b.extxyz").frames[0].energy == -3.0
    atoms.info = {"pbe_energy": -3.0, "hf_energy": -4.0}
    ase.io.write(tmp_path / "c.extxyz", atoms)
    assert "info['pbe_energy'] and info['hf_energy'] differ" in refused(tmp_path / "c.extxyz")
    atoms.info = {"REF_energy": -3.0, "hf_energy": -4.0}
    ase.io.write(tmp_path / "d.extxyz", atoms)
    assert read_dataset(tmp_path / "d.extxyz").frames[0].energy == -3.0


def test_frames_with_their_labels_under_different_keys(tmp_path: Path) -> None:
    first, second = water(), water()
    first.info["REF_energy"], second.info["dft_energy"] = -3.0, -4.0
    ase.io.write(tmp_path / "a.extxyz", [first, second])
    assert "frame 1: energy from info['dft_energy'], in frames before from info['REF_energy']" in refused(
        tmp_path / "a.extxyz"
    )


def test_a_key_that_no_frame_has_lists_what_there_is(tmp_path: Path) -> None:
    atoms = water()
    atoms.info.update(one=1.0, two=2.0)
    ase.io.write(tmp_path / "a.extxyz", atoms)
    assert "no frame has an energy 'three'; the file holds info['one'], info['two']; correct energy_key" in refused(
        tmp_path / "a.extxyz", energy_key="three"
    )


def test_weights_and_kinds_of_configurations(tmp_path: Path) -> None:
    frames = [water(energy=-1.0, forces=FORCES) for _ in range(4)]
    frames[0].info.update(weight=2.5, config_type="bulk")
    frames[1].info.update(config_weight=0.5, config_type="IsolatedAtom")
    frames[2].info.update(weight=0.0)
    ase.io.write(tmp_path / "a.extxyz", frames)
    for dataset in (read_dataset(tmp_path / "a.extxyz"), stored_dataset(tmp_path / "a.extxyz", 5.0)):
        assert [f.weight for f in dataset.frames] == [2.5, 0.5, 0.0, 1.0]
        assert [f.config_type for f in dataset.frames] == ["bulk", "IsolatedAtom", "", ""]
    with ase.db.connect(tmp_path / "a.db") as database:
        database.write(frames[0], weight=3.0, config_type="slab")
    (frame,) = read_dataset(tmp_path / "a.db").frames
    assert (frame.weight, frame.config_type) == (3.0, "slab")


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"weight": -1.0}, "weight'] = -1.0; expected a finite number that is not negative"),
        ({"weight": "heavy"}, "weight'] = 'heavy'; expected a number"),
        ({"weight": 1.0, "config_weight": 2.0}, "expected one weight"),
    ],
)
def test_weights_that_are_none(tmp_path: Path, info: dict[str, Any], said: str) -> None:
    atoms = water(energy=-1.0, forces=FORCES)
    atoms.info.update(info)
    ase.io.write(tmp_path / "a.extxyz", atoms)
    assert said in refused(tmp_path / "a.extxyz")


def test_a_store_keeps_stress(tmp_path: Path) -> None:
    atoms, stress = bulk("Cu"), np.array([0.1, 0.2, 0.3, 0.04, 0.05, 0.06])
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((1, 3)), stress=stress)
    ase.io.write(tmp_path / "a.traj", [atoms, water(energy=-1.0, forces=FORCES)])
    for dataset in (read_dataset(tmp_path / "a.traj"), stored_dataset(tmp_path / "a.traj", 5.0)):
        np.testing.assert_array_equal(dataset.frames[0].stress, stress)
        assert dataset.frames[1].stress is None


def test_forces_belong_to_the_free_energy(tmp_path: Path) -> None:
    """With smeared electrons; a calculator without smearing gives the same number twice."""
    smeared = water(energy=-1.0, free_energy=-1.25, forces=FORCES)
    ase.io.write(tmp_path / "a.traj", [smeared, water(energy=-1.0, free_energy=-1.0, forces=FORCES)])
    dataset = read_dataset(tmp_path / "a.traj")
    assert [f.energy for f in dataset.frames] == [-1.25, -1.0]
    assert dataset.notes == (
        "energies are free_energy, whose derivative the forces are; it differs from energy in 1 frame, "
        "by up to 0.25 eV",
    )
    assert [f.energy for f in read_dataset(tmp_path / "a.traj", energy_key="energy").frames] == [-1.0, -1.0]
    ase.io.write(tmp_path / "b.traj", water(energy=-1.0, free_energy=-1.25))
    assert read_dataset(tmp_path / "b.traj").frames[0].energy == -1.0


def test_what_a_calculator_has_beside_its_labels(tmp_path: Path) -> None:
    """Energies and stresses of atoms by ASE's own names, and spreads by an ensemble's."""
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=0)
    atoms.calc = EMT()
    energy, stress = atoms.get_potential_energy(), atoms.get_stress()
    assert atoms.calc.results["energies"].shape == (4,)
    for name in ("a.traj", "a.extxyz", "a.db"):
        ase.io.write(tmp_path / name, atoms)
        (frame,) = read_dataset(tmp_path / name).frames
        assert frame.energy == pytest.approx(energy, rel=1e-12)
        np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=1e-8)
        np.testing.assert_allclose(frame.stress, stress, atol=1e-8)


def test_words_in_a_comment_are_no_labels(tmp_path: Path) -> None:
    """ASE makes a key of every word that is none of its own, with the value True."""
    (tmp_path / "a.xyz").write_text("3\nenergy: -76.3 Ha\nO 0 0 0\nH 0 0 1\nH 0 1 0\n")
    assert ase.io.read(tmp_path / "a.xyz").info["energy:"] is True
    dataset = read_dataset(tmp_path / "a.xyz")
    assert dataset.frames[0].energy is None
    assert dataset.labels == "labels: none"
    assert "info['energy:']" in dataset.keys
    assert "frame 0 has energy True; expected a number" in refused(tmp_path / "a.xyz", energy_key="energy:")


def test_a_periodic_frame_without_a_cell_is_named(tmp_path: Path) -> None:
    text = '1\nProperties=species:S:1:pos:R:3 energy=-3 pbc="T T T"\nO 0 0 0\n'
    (tmp_path / "a.extxyz").write_text(text.replace(' pbc="T T T"', "") + text)
    assert "frame 1 is periodic, but its cell has no volume" in refused(tmp_path / "a.extxyz")
    slab = Atoms("O", cell=[2.0, 3.0, 0.0], pbc=[True, True, False])
    slab.info["energy"] = -3.0
    ase.io.write(tmp_path / "b.extxyz", slab)
    assert read_dataset(tmp_path / "b.extxyz").frames[0].energy == -3.0


def test_weights_of_single_labels(tmp_path: Path) -> None:
    """In MACE's files a label of weight zero is one that is not there, whatever stands for it."""
    frames = []
    for energy, weights in (
        (-3.0, {}),
        (0.0, {"config_energy_weight": 0.0}),
        (-3.2, {"config_forces_weight": 0, "config_energy_weight": 1}),
        (-3.3, {"config_energy_weight": 2.5, "config_stress_weight": 0.0, "config_virials_weight": 0.0}),
    ):
        atoms = water()
        atoms.info.update(REF_energy=energy, **weights)
        atoms.arrays["REF_forces"] = FORCES
        frames.append(atoms)
    ase.io.write(tmp_path / "a.extxyz", frames)
    dataset = read_dataset(tmp_path / "a.extxyz")
    assert [frame.energy for frame in dataset.frames] == [-3.0, None, -3.2, -3.3]
    assert [frame.forces is None for frame in dataset.frames] == [False, False, True, False]
    (note,) = dataset.notes
    assert note.startswith("info['config_energy_weight'] counts as one where it is not zero")
    frames[1].info["config_energy_weight"] = "none"
    ase.io.write(tmp_path / "b.extxyz", frames)
    assert "frame 1 has info['config_energy_weight'] = 'none'; expected a number" in refused(tmp_path / "b.extxyz")


def test_two_energies_under_names_of_npz_files_that_differ(tmp_path: Path) -> None:
    numbers, positions = water().numbers, [water().positions]
    np.savez(tmp_path / "a.npz", R=positions, z=numbers, F=[FORCES], E=[-3.0], energies=[-4.0])
    assert "E and energies differ" in refused(tmp_path / "a.npz")
    assert read_dataset(tmp_path / "a.npz", energy_key="E", energy_unit="eV").frames[0].energy == -3.0


def test_npz_with_symbols_units_in_an_array_and_cells(tmp_path: Path) -> None:
    arrays = {"R": [water().positions], "z": list("OHH"), "F": [FORCES], "E": [-3.0], "units": ["eV", "Angstrom"]}
    np.savez(tmp_path / "a.npz", **arrays)
    (frame,) = read_dataset(tmp_path / "a.npz").frames
    assert (frame.geometry.numbers.tolist(), frame.energy) == ([8, 1, 1], -3.0)
    np.savez(tmp_path / "b.npz", **arrays | {"cell": [np.eye(3)]})
    assert "holds cell, which no MD17 .npz has" in refused(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", **arrays | {"z": ["O", "H", "Qq"]})
    assert "z holds 'Qq'; expected atomic numbers or chemical symbols" in refused(tmp_path / "c.npz")


def test_an_atom_that_is_no_element_is_named(tmp_path: Path) -> None:
    atoms = Atoms("OX", [[0, 0, 0], [0, 0, 1.0]])
    atoms.info["energy"] = -3.0
    ase.io.write(tmp_path / "a.extxyz", [Atoms("O", info={"energy": -1.0}), atoms])
    dataset = read_dataset(tmp_path / "a.extxyz")
    with pytest.raises(DataError, match="a.extxyz: frame 1 has an atom of number 0, which is no element"):
        check_frames(dataset.frames, dataset.source, energies=True, forces=False)
