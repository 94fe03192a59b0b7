"""HDF5 as SPICE, ANI-1, ANI-1x, ANI-2x, QM7-X and MACE lay it out, written by h5py."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule

from schnet_ase.data import read_dataset, stored_dataset
from schnet_ase.errors import DataError

HARTREE, BOHR = 27.21138602, 0.52917721067  # CODATA 2014
RNG = np.random.default_rng(0)
WATER = molecule("H2O").positions + RNG.normal(0, 0.05, (3, 3, 3))
METHANE = molecule("CH4").positions + RNG.normal(0, 0.05, (2, 5, 3))
E_WATER, E_METHANE = np.array([-76.1, -76.2, -76.3]), np.array([-40.1, -40.2])
F_WATER, F_METHANE = RNG.normal(0, 0.02, WATER.shape), RNG.normal(0, 0.02, METHANE.shape)


def assert_read(file: Path, energy: float, force: float, length: float, order: str = "methane water") -> None:
    dataset = read_dataset(file)
    parts = {
        "water": zip([[8, 1, 1]] * 3, WATER, E_WATER, F_WATER, strict=True),
        "methane": zip([[6, 1, 1, 1, 1]] * 2, METHANE, E_METHANE, F_METHANE, strict=True),
    }
    expected = [frame for name in order.split() for frame in parts[name]]
    assert len(dataset.frames) == len(expected)
    for frame, (numbers, positions, e, f) in zip(dataset.frames, expected, strict=True):
        np.testing.assert_array_equal(frame.geometry.numbers, numbers)
        np.testing.assert_allclose(frame.geometry.positions, positions * length, rtol=1e-8)
        assert frame.energy == pytest.approx(e * energy, rel=1e-8)
        if force:
            np.testing.assert_allclose(frame.forces, f * force, rtol=1e-7)
        else:
            assert frame.forces is None


@pytest.mark.parametrize("stated", [True, False])
def test_spice(tmp_path: Path, stated: bool) -> None:
    """Gradients, whose sign is the opposite of the forces'; formation energies beside them are no labels."""
    with h5py.File(tmp_path / "SPICE.hdf5", "w") as file:
        for name, numbers, x, e, f in (
            ("methane", [6, 1, 1, 1, 1], METHANE, E_METHANE, F_METHANE),
            ("water", [8, 1, 1], WATER, E_WATER, F_WATER),
        ):
            group = file.create_group(name)
            group.create_dataset("subset", data=["SPICE"], dtype=h5py.string_dtype())
            group.create_dataset("atomic_numbers", data=numbers, dtype=np.int16)
            for key, value, unit in (
                ("conformations", x, "bohr"),
                ("dft_total_energy", e, "hartree"),
                ("dft_total_gradient", -f, "hartree/bohr"),
                ("formation_energy", e + 76.0, "hartree"),
                ("dispersion_total_energy", e / 1e4, "hartree"),
            ):
                dataset = group.create_dataset(key, data=value)
                if stated:
                    dataset.attrs["units"] = unit
    assert_read(tmp_path / "SPICE.hdf5", HARTREE, HARTREE / BOHR, BOHR)
    assert ("as the file says" in read_dataset(tmp_path / "SPICE.hdf5").units) == stated


def test_units_of_attributes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("water")
        group["atomic_numbers"] = [8, 1, 1]
        for key, value, unit in (
            ("conformations", WATER, "nm"),
            ("energy", E_WATER, "eV"),
            ("forces", F_WATER, "eV/nm"),
        ):
            group.create_dataset(key, data=value).attrs["units"] = unit
    assert_read(tmp_path / "a.h5", 1.0, 0.1, 10.0, "water")
    with pytest.raises(DataError, match="length_unit is 'Å', but the file says the unit of length = 'nm'"):
        read_dataset(tmp_path / "a.h5", length_unit="Å")


def test_ani_1(tmp_path: Path) -> None:
    """Groups within groups, symbols, and conformers of high energy with labels of another number."""
    with h5py.File(tmp_path / "ani_gdb_s01.h5", "w") as file:
        for k, (symbols, x, e) in enumerate(((b"CHHHH", METHANE, E_METHANE), (b"OHH", WATER, E_WATER))):
            group = file.create_group(f"gdb11_s01/gdb11_s01-{k}")
            group["coordinates"], group["energies"] = x, e
            group["coordinatesHE"], group["energiesHE"] = np.concatenate([x, x]), np.concatenate([e, e])
            group["species"] = np.array([symbols[i : i + 1] for i in range(len(symbols))])
            group["smiles"] = np.array([b"C"])
    assert_read(tmp_path / "ani_gdb_s01.h5", HARTREE, 0.0, 1.0)


def test_ani_1x(tmp_path: Path) -> None:
    """NaN where a level of theory was not computed; other levels beside that of the forces."""
    with h5py.File(tmp_path / "ani1x-release.h5", "w") as file:
        for name, numbers, x, e, f in (
            ("C1H4", [6, 1, 1, 1, 1], METHANE, E_METHANE, F_METHANE),
            ("H2O1", [8, 1, 1], WATER, E_WATER, F_WATER),
        ):
            group = file.create_group(name)
            group["atomic_numbers"] = np.array(numbers, np.uint8)
            group["coordinates"] = x.astype(np.float32)
            group["wb97x_dz.energy"], group["wb97x_dz.forces"] = e, f
            group["ccsd(t)_cbs.energy"] = np.where(np.arange(len(e)) == 0, np.nan, e - 0.5)
            group["hf_dz.energy"] = e + 1.0
    dataset = read_dataset(tmp_path / "ani1x-release.h5")
    assert dataset.frames[0].energy == pytest.approx(-40.1 * HARTREE, rel=1e-8)
    np.testing.assert_allclose(dataset.frames[0].forces, F_METHANE[0] * HARTREE, rtol=1e-7)
    np.testing.assert_allclose(dataset.frames[0].geometry.positions, METHANE[0], rtol=1e-6)
    other = read_dataset(tmp_path / "ani1x-release.h5", energy_key="ccsd(t)_cbs.energy")
    assert [f.energy is None for f in other.frames] == [True, False, True, False, False]
    assert other.frames[1].energy == pytest.approx(-40.7 * HARTREE, rel=1e-8)


def test_ani_2x(tmp_path: Path) -> None:
    """Groups by the number of atoms, elements of every conformer."""
    with h5py.File(tmp_path / "ani2x.h5", "w") as file:
        for n, numbers, x, e, f in (
            (3, [8, 1, 1], WATER, E_WATER, F_WATER),
            (5, [6, 1, 1, 1, 1], METHANE, E_METHANE, F_METHANE),
        ):
            group = file.create_group(str(n))
            group["coordinates"], group["energies"], group["forces"] = x, e, f
            group["species"] = np.tile(numbers, (len(x), 1))
    assert_read(tmp_path / "ani2x.h5", HARTREE, HARTREE, 1.0, "water methane")


def test_qm7x(tmp_path: Path) -> None:
    """A group a conformer, numbers in arrays of one, eV, and parts of the energy beside it."""
    with h5py.File(tmp_path / "1000.hdf5", "w") as file:
        for m, (numbers, x, e, f) in enumerate(
            (([6, 1, 1, 1, 1], METHANE, E_METHANE, F_METHANE), ([8, 1, 1], WATER, E_WATER, F_WATER))
        ):
            for k in range(len(x)):
                group = file.create_group(f"{m + 1}/Geom-m{m + 1}-i1-c1-d{k + 1}")
                group["atNUM"], group["atXYZ"], group["totFOR"] = np.array(numbers), x[k], f[k]
                group["ePBE0+MBD"], group["eMBD"], group["eAT"] = e[k : k + 1], [-0.1], [-20.0]
                group["pbe0FOR"] = f[k] + 0.001
    assert_read(tmp_path / "1000.hdf5", 1.0, 1.0, 1.0)


def test_mace(tmp_path: Path) -> None:
    """Numbered configurations, properties of their own group, and ``"None"`` for what is not there."""
    crystal = bulk("Cu", cubic=True)
    with h5py.File(tmp_path / "train.h5", "w") as file:
        batch = file.create_group("config_batch_0")
        for k in range(11):
            group = batch.create_group(f"config_{k}")
            group["atomic_numbers"], group["positions"] = crystal.numbers, crystal.positions
            group["cell"], group["pbc"] = crystal.cell.array, crystal.pbc
            group["weight"], group["config_type"] = 1.0 + k, "bulk"
            properties = group.create_group("properties")
            properties["energy"], properties["forces"] = -1.0 - k, np.full((4, 3), 0.1 * k)
            properties["stress"] = "None" if k == 3 else np.diag([0.1, 0.2, 0.3])
            group.create_group("property_weights")["energy"] = 1.0
    dataset = read_dataset(tmp_path / "train.h5")
    assert [f.energy for f in dataset.frames] == [-1.0 - k for k in range(11)]
    assert [f.weight for f in dataset.frames] == [1.0 + k for k in range(11)]
    assert {f.config_type for f in dataset.frames} == {"bulk"}
    np.testing.assert_array_equal(dataset.frames[10].forces, np.full((4, 3), 1.0))
    np.testing.assert_array_equal(dataset.frames[0].stress, [0.1, 0.2, 0.3, 0, 0, 0])
    assert dataset.frames[3].stress is None
    assert dataset.frames[0].atoms() == crystal
    stored = stored_dataset(tmp_path / "train.h5", 5.0)
    assert [f.energy for f in stored.frames] == [f.energy for f in dataset.frames]


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"no HDF5")
    with pytest.raises(DataError, match=r"a\.h5: truncated or not an HDF5 file"):
        read_dataset(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["weights"] = np.ones(3)
    with pytest.raises(DataError, match="no group with positions and elements; it holds weights; expected groups"):
        read_dataset(tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["m/coordinates"], file["m/species"] = np.ones((2, 4, 3)), [1, 1, 1]
    with pytest.raises(DataError, match=r"group /m: coordinates has shape \(2, 4, 3\); expected \(frames, 3, 3\)"):
        read_dataset(tmp_path / "c.h5")


def test_units_that_differ_between_molecules_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, unit in (("a", "hartree"), ("b", "eV")):
            file[f"{name}/positions"], file[f"{name}/atomic_numbers"] = [[0.0, 0.0, 0.0]], [8]
            file[f"{name}/energy"] = -75.0
            file[f"{name}/energy"].attrs["Unit"] = unit
    with pytest.raises(DataError, match=r"group /b states 'eV' of energy, groups before 'hartree'; expected one unit"):
        read_dataset(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["b/energy"].attrs["Unit"] = "hartree"
    assert [f.energy for f in read_dataset(tmp_path / "a.h5").frames] == pytest.approx([-75.0 * units.Hartree] * 2)
