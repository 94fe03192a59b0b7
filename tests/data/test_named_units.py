"""Units that the name of a label says, or a key named after it; and units in the spellings of other libraries."""

from __future__ import annotations

from pathlib import Path

import ase.io
import h5py
import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule

from schnet_ase.data import read_dataset
from schnet_ase.data.labels.named_units import unit_in_name
from schnet_ase.data.labels.units import ENERGY, FORCE, LENGTH, STRESS, Kind, parse_unit
from schnet_ase.errors import DataError

KCAL, KJ = units.kcal / units.mol, units.kJ / units.mol
FORCES = np.array([[0.1, -0.2, 0.3], [0.0, 0.25, -0.5], [-0.1, -0.05, 0.2]])


def written(file: Path, info: dict[str, object], forces: str = "", **arrays: np.ndarray) -> Path:
    atoms = molecule("H2O")
    atoms.info.update(info)
    if forces:
        atoms.arrays[forces] = FORCES
    for name, array in arrays.items():
        atoms.arrays[name] = array
    ase.io.write(file, atoms)
    return file


@pytest.mark.parametrize(
    ("energy", "forces", "per_energy", "per_force"),
    [
        ("energy_hartree", "forces_hartree_bohr", units.Hartree, units.Hartree / units.Bohr),
        ("dft_energy_Ha", "dft_forces_Ha_Bohr", units.Hartree, units.Hartree / units.Bohr),
        ("energy_Ha", "forces_Ha_per_Bohr", units.Hartree, units.Hartree / units.Bohr),
        ("energy_kcal_per_mol", "forces_kcal_per_mol_per_A", units.kcal / units.mol, units.kcal / units.mol),
        ("total_energy_au", "forces_au", units.Hartree, units.Hartree / units.Bohr),
        ("energy_kcal", "forces_kcal_mol_A", KCAL, KCAL),
        ("energy_kcal_mol", "gradient_kcal_mol_Ang", KCAL, -KCAL),
        ("energy_kJ_mol", "forces_kJ_mol_nm", KJ, KJ / 10.0),
        ("energy_eV", "forces_eV_A", 1.0, 1.0),
        ("energy_hartree", "forces", units.Hartree, units.Hartree),  # per Å, as forces that nobody speaks of
    ],
)
def test_names_say_units(tmp_path: Path, energy: str, forces: str, per_energy: float, per_force: float) -> None:
    file = written(tmp_path / "a.extxyz", {energy: -3.5}, forces)
    dataset = read_dataset(file)
    assert dataset.frames[0].energy == pytest.approx(-3.5 * per_energy, rel=1e-14)
    np.testing.assert_allclose(dataset.frames[0].forces, FORCES * per_force, rtol=1e-14)
    assert "as the file says" in dataset.labels


def test_names_in_other_formats(tmp_path: Path) -> None:
    positions, numbers = molecule("H2O").positions, molecule("H2O").numbers
    np.savez(tmp_path / "a.npz", R=[positions], z=numbers, energy_Ha=[-3.5], F=[FORCES])
    assert read_dataset(tmp_path / "a.npz").frames[0].energy == pytest.approx(-3.5 * units.Hartree, rel=1e-14)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a/positions"], file["a/atomic_numbers"], file["a/energy_kj_mol"] = positions, numbers, -3.5
    assert read_dataset(tmp_path / "a.h5").frames[0].energy == pytest.approx(-3.5 * KJ, rel=1e-14)


def test_a_name_that_contradicts(tmp_path: Path) -> None:
    file = written(tmp_path / "a.extxyz", {"energy_hartree": -3.5})
    with pytest.raises(DataError, match=r"energy_unit is 'eV', but the file says the name .* = 'hartree'"):
        read_dataset(file, energy_unit="eV")
    assert read_dataset(file, energy_unit="a.u.").frames[0].energy == pytest.approx(-3.5 * units.Hartree, rel=1e-14)
    file = written(tmp_path / "b.extxyz", {"energy_hartree": -3.5, "energy_eV": -95.24})
    with pytest.raises(DataError, match=r"info\['energy_eV'\] is in eV by its name, but read in Hartree \(as the file"):
        read_dataset(file)
    assert read_dataset(file, energy_key="energy_eV").frames[0].energy == -95.24


def test_forces_that_name_an_energy_only_are_refused(tmp_path: Path) -> None:
    """Hartree/Bohr or Hartree/Å: nobody can tell."""
    file = written(tmp_path / "a.extxyz", {"energy_hartree": -3.5}, "forces_hartree")
    with pytest.raises(DataError, match=r"'hartree'; expected a unit of force, .*; correct it, or give force_unit"):
        read_dataset(file)
    frame = read_dataset(file, force_unit="Hartree/Bohr").frames[0]
    np.testing.assert_allclose(frame.forces, FORCES * units.Hartree / units.Bohr, rtol=1e-14)


@pytest.mark.parametrize(
    "name", ["energy_wb97m", "energy_a", "pbe_energy", "energy_tz", "energy", "REF_energy", "energy2"]
)
def test_names_that_say_no_unit(name: str) -> None:
    assert unit_in_name(name, "energy") == ""


@pytest.mark.parametrize("key", ["{}_unit", "{}-unit", "unit_{}"])
@pytest.mark.parametrize("label", ["dft_energy", "REF_energy", "total_energy"])
def test_units_stated_of_a_label_by_its_name(tmp_path: Path, key: str, label: str) -> None:
    file = written(
        tmp_path / "a.extxyz", {label: -3.5, key.format(label): "Hartree", "REF_forces_unit": "eV/Å"}, "REF_forces"
    )
    frame = read_dataset(file).frames[0]
    assert frame.energy == pytest.approx(-3.5 * units.Hartree, rel=1e-14)
    np.testing.assert_array_equal(frame.forces, FORCES)
    with pytest.raises(DataError, match="but the file says"):
        read_dataset(file, energy_unit="kcal/mol")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (ENERGY, "kilocalorie / mole", KCAL),  # as pint writes it
        (ENERGY, "electron_volt", 1.0),
        (FORCE, "kilojoule / mole / nanometer", KJ / 10.0),
        (FORCE, "kilojoules_per_mole/nanometer", KJ / 10.0),
        (FORCE, "kilocalorie / angstrom / mole", KCAL),
        (FORCE, "kcal·mol−1·Å−1", KCAL),  # minus signs
        (FORCE, "eV.Å⁻¹", 1.0),
        (FORCE, "eV/Ångström", 1.0),
        (LENGTH, "A\N{COMBINING RING ABOVE}ngstro\N{COMBINING DIAERESIS}m", 1.0),
        (LENGTH, "\N{ANGSTROM SIGN}", 1.0),
        (LENGTH, "nanometre", 10.0),
        (STRESS, "a.u.", units.Hartree / units.Bohr**3),
    ],
)
def test_spellings(kind: Kind, text: str, value: float) -> None:
    assert parse_unit(text, kind, "").factor == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize(("name", "sign"), [("stress", 1.0), ("virial", -1.0)])
@pytest.mark.parametrize("stated", [True, False])
def test_stress_and_virial_in_atomic_units(tmp_path: Path, name: str, sign: float, stated: bool) -> None:
    atoms = bulk("Cu", a=3.6)
    atoms.info.update({"energy": -1.0, name: np.diag([1.0, 2.0, 3.0])} | ({"units": "a.u."} if stated else {}))
    ase.io.write(tmp_path / "a.extxyz", atoms)
    dataset = read_dataset(tmp_path / "a.extxyz", **({} if stated else {"stress_unit": "a.u."}))
    unit = (
        units.Hartree / units.Bohr**3
        if name == "stress"
        else units.Hartree / np.linalg.det(dataset.frames[0].geometry.cell)
    )
    np.testing.assert_allclose(dataset.frames[0].stress[:3], sign * unit * np.array([1.0, 2.0, 3.0]), rtol=1e-12)
