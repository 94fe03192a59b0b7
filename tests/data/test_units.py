"""Units by their names, and those that are given, stated or assumed for a file."""

from __future__ import annotations

import gzip
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from schnet_ase.data import read_dataset
from schnet_ase.data.labels.units import ENERGY, FORCE, LENGTH, STRESS, Kind, parse_unit
from schnet_ase.errors import DataError

# CODATA 2014, which ASE has too: in eV, Å, and J per eV and particles per mol.
HARTREE, BOHR = 27.21138602, 0.52917721067
E, NA = 1.6021766208e-19, 6.022140857e23
KCAL, KJ = 4184.0 / (NA * E), 1000.0 / (NA * E)
GPA = 1e9 * 1e-30 / E


def test_kcal_per_mol_is_that_of_ase_to_the_last_bit():
    """As the trainings of before had it, which resume and repeat with the same numbers."""
    assert parse_unit("kcal/mol", ENERGY, "").factor == units.kcal / units.mol
    assert parse_unit("kcal/mol/Ang", FORCE, "").factor == units.kcal / units.mol


@pytest.mark.parametrize(
    ("kind", "texts", "value"),
    [
        (ENERGY, ["eV", "ev", "'eV'", " eV "], 1.0),
        (ENERGY, ["meV"], 1e-3),
        (ENERGY, ["Hartree", "hartree", "Ha", "Eh", "a.u.", "au"], HARTREE),
        (ENERGY, ["Ry", "Rydberg"], HARTREE / 2),
        (ENERGY, ["kcal/mol", "kcal mol^-1", "kcal·mol⁻¹", "kcal_per_mol", "KCAL/MOL"], KCAL),
        (ENERGY, ["kJ/mol", "kJ mol-1"], KJ),
        (LENGTH, ["Å", "Ang", "Angstrom", "A", "angstroms"], 1.0),
        (LENGTH, ["Bohr", "bohr", "a0", "a.u."], BOHR),
        (LENGTH, ["nm"], 10.0),
        (FORCE, ["eV/Å", "eV/Ang", "eV/A", "eV/Angstrom", "eV Å^-1"], 1.0),
        (FORCE, ["Hartree/Bohr", "Ha/a0", "au", "Eh/a_0"], HARTREE / BOHR),
        (FORCE, ["kcal/mol/Ang", "kcal/(mol*Ang)", "kcal/(mol Å)", "kcal mol^-1 Å^-1"], KCAL),
        (FORCE, ["kJ/mol/nm", "kJ/(mol·nm)"], KJ / 10),
        (STRESS, ["eV/Å³", "eV/Å^3", "eV/A**3", "eV/Ang^3"], 1.0),
        (STRESS, ["GPa"], GPA),
        (STRESS, ["kbar", "kB"], 0.1 * GPA),
        (STRESS, ["bar"], 1e-4 * GPA),
        (STRESS, ["Hartree/Bohr³", "au"], HARTREE / BOHR**3),
    ],
)
def test_units_by_their_names(kind: Kind, texts: list[str], value: float) -> None:
    units = {parse_unit(text, kind, "") for text in texts}
    assert len({unit.word for unit in units}) == 1, "one unit has one name whatever it is called in a file"
    assert units.pop().factor == pytest.approx(value, rel=1e-8)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (ENERGY, "kcal"),
        (ENERGY, "MeV"),
        (ENERGY, "eV/atom"),
        (ENERGY, "eV/Å"),
        (ENERGY, ""),
        (ENERGY, "None"),
        (ENERGY, "arb. unit"),
        (LENGTH, "eV"),
        (FORCE, "eV"),
        (FORCE, "eV/Å/Å"),
        (STRESS, "eV"),
        (STRESS, "GPa/Å"),
    ],
)
def test_what_is_no_unit_of_its_kind(kind: Kind, text: str) -> None:
    with pytest.raises(DataError, match=f"data.npz: key is .*expected a unit of {kind.name}"):
        parse_unit(text, kind, "data.npz: key")


def crystal() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    return atoms


def labelled(atoms: Atoms, **results: object) -> Atoms:
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


FORCES = np.array([[0.1, -0.2, 0.3], [0.0, 0.25, -0.5], [-0.1, -0.05, 0.2]])


@pytest.mark.parametrize(
    ("options", "length", "energy", "force", "words"),
    [
        ({}, 1.0, 1.0, 1.0, "Å, eV, eV/Å (assumed, as ASE files have it)"),
        ({"energy_unit": "Hartree"}, 1.0, HARTREE, HARTREE, "Å, Hartree, Hartree/Å (as given)"),
        (
            {"energy_unit": "Ha", "force_unit": "Ha/Bohr"},
            1.0,
            HARTREE,
            HARTREE / BOHR,
            "Å, Hartree, Hartree/Bohr (as given)",
        ),
        ({"energy_unit": "Ha", "force_unit": "eV/Ang"}, 1.0, HARTREE, 1.0, "Å, Hartree, eV/Å (as given)"),
        (
            {"energy_unit": "Ha", "length_unit": "Bohr"},
            BOHR,
            HARTREE,
            HARTREE / BOHR,
            "Bohr, Hartree, Hartree/Bohr (as given)",
        ),
        (
            {"length_unit": "nm", "energy_unit": "kJ/mol"},
            10.0,
            KJ,
            KJ / 10,
            "nm, kJ/mol, kJ/mol/nm (as given)",
        ),
        (
            {"force_unit": "meV/Å"},
            1.0,
            1.0,
            1e-3,
            "Å, eV, meV/Å (assumed, as ASE files have it; forces as given)",
        ),
    ],
)
def test_units_that_are_given(
    tmp_path: Path, options: dict[str, str], length: float, energy: float, force: float, words: str
) -> None:
    atoms = labelled(molecule("H2O"), energy=-2.5, forces=FORCES)
    ase.io.write(tmp_path / "a.extxyz", atoms)
    dataset = read_dataset(tmp_path / "a.extxyz", **options)
    (frame,) = dataset.frames
    assert frame.energy == pytest.approx(-2.5 * energy, rel=1e-8)
    np.testing.assert_allclose(frame.forces, FORCES * force, rtol=1e-7)
    np.testing.assert_allclose(frame.geometry.positions, molecule("H2O").positions * length, atol=1e-7)
    assert dataset.units == words


def test_a_cell_has_the_unit_of_length(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.extxyz", labelled(crystal(), energy=-1.0, forces=np.ones((4, 3))))
    (frame,) = read_dataset(tmp_path / "a.extxyz", length_unit="Bohr").frames
    np.testing.assert_allclose(frame.geometry.cell, crystal().cell.array * BOHR, rtol=1e-8)


STRESS_6 = np.array([0.01, 0.02, -0.03, 0.004, -0.005, 0.006])
FULL = np.array([[0.01, 0.006, -0.005], [0.006, 0.02, 0.004], [-0.005, 0.004, -0.03]])
"""The same by hand: yz is 0.004, xz -0.005, xy 0.006."""


@pytest.mark.parametrize(
    ("held", "options", "factor"),
    [
        ({"REF_stress": STRESS_6}, {}, 1.0),
        ({"REF_stress": FULL.ravel()}, {}, 1.0),
        ({"dft_stress": FULL}, {}, 1.0),
        ({"stress": FULL}, {}, 1.0),
        ({"stress": FULL}, {"stress_unit": "GPa"}, GPA),
        ({"REF_stress": FULL}, {"stress_unit": "kbar"}, 0.1 * GPA),
        ({"REF_stress": FULL}, {"energy_unit": "Hartree"}, HARTREE),
        ({"my": FULL}, {"stress_key": "my"}, 1.0),
    ],
)
def test_stress(tmp_path: Path, held: dict[str, np.ndarray], options: dict[str, str], factor: float) -> None:
    atoms = crystal()
    atoms.info.update(held, energy=-1.0)
    ase.io.write(tmp_path / "a.extxyz", atoms)
    (frame,) = read_dataset(tmp_path / "a.extxyz", **options).frames
    np.testing.assert_allclose(frame.stress, STRESS_6 * factor, rtol=1e-7)


@pytest.mark.parametrize("suffix", ["extxyz", "extxyz.gz"])
@pytest.mark.parametrize("quotes", ['""', "{}", "[]"])
def test_six_numbers_in_a_header(tmp_path: Path, suffix: str, quotes: str) -> None:
    """In ASE's order, xx, yy, zz, yz, xz, xy; its own reader takes nine alone."""
    ase.io.write(tmp_path / "a.extxyz", [labelled(crystal(), energy=-1.0)] * 2)
    six = f"stress={quotes[0]}0.01 0.02 -3e-2 0.004 -0.005 0.006{quotes[1]} energy="
    text = (tmp_path / "a.extxyz").read_text().replace("energy=", six)
    if suffix == "extxyz":
        (tmp_path / "a.extxyz").write_text(text)
    else:
        (tmp_path / "a.extxyz.gz").write_bytes(gzip.compress(text.encode()))
    for frame in read_dataset(tmp_path / f"a.{suffix}").frames:
        np.testing.assert_allclose(frame.stress, STRESS_6, rtol=1e-12)
        np.testing.assert_allclose(frame.geometry.cell, crystal().cell.array, atol=1e-8)


@pytest.mark.parametrize("name", ["virial", "virials", "REF_virial", "REF_virials", "dft_virial"])
@pytest.mark.parametrize(("options", "factor"), [({}, 1.0), ({"stress_unit": "kcal/mol"}, KCAL)])
def test_virial_is_minus_stress_times_volume(tmp_path: Path, name: str, options: dict[str, str], factor: float) -> None:
    atoms = crystal()
    volume = 3.61**3  # of four atoms of copper
    assert atoms.get_volume() == pytest.approx(volume)
    atoms.info.update({name: -FULL * volume})
    ase.io.write(tmp_path / "a.extxyz", atoms)
    dataset = read_dataset(tmp_path / "a.extxyz", **options)
    np.testing.assert_allclose(dataset.frames[0].stress, STRESS_6 * factor, rtol=1e-7)
    assert f"stress from info['{name}'], a virial" in dataset.labels


def test_a_unit_of_stress_goes_with_what_the_label_is(tmp_path: Path) -> None:
    """A virial is an energy; what a name does not say, the unit does."""
    atoms = crystal()
    atoms.info["w"] = -FULL * atoms.get_volume() / KCAL
    ase.io.write(tmp_path / "a.extxyz", atoms)
    (frame,) = read_dataset(tmp_path / "a.extxyz", stress_key="w", stress_unit="kcal/mol").frames
    np.testing.assert_allclose(frame.stress, STRESS_6, rtol=1e-7)
    for name, unit, said in (
        ("virial", "GPa", r"info\['virial'\], a virial, but the unit of stress is GPa; expected a unit of energy"),
        (
            "REF_stress",
            "eV",
            r"info\['REF_stress'\], a stress, but the unit of stress is eV; expected energy per volume",
        ),
    ):
        atoms.info = {name: FULL}
        ase.io.write(tmp_path / "b.extxyz", atoms)
        with pytest.raises(DataError, match=said):
            read_dataset(tmp_path / "b.extxyz", stress_unit=unit)


def test_stress_and_virial_must_agree(tmp_path: Path) -> None:
    """That of MACE's files and that of ASE's calculators; where their signs differ, neither is believed."""
    atoms = crystal()
    atoms.info["REF_virials"] = -FULL * atoms.get_volume()
    ase.io.write(tmp_path / "a.extxyz", labelled(atoms, stress=STRESS_6))
    np.testing.assert_allclose(read_dataset(tmp_path / "a.extxyz").frames[0].stress, STRESS_6, rtol=1e-7)
    atoms.info["REF_virials"] *= -1.0
    ase.io.write(tmp_path / "b.extxyz", labelled(atoms, stress=STRESS_6))
    dataset = read_dataset(tmp_path / "b.extxyz")
    assert dataset.frames[0].stress is None
    assert "results['stress'] and info['REF_virials'] differ" in dataset.notes[0]
    (frame,) = read_dataset(tmp_path / "b.extxyz", stress_key="REF_virials").frames
    np.testing.assert_allclose(frame.stress, -STRESS_6, rtol=1e-7)


def test_a_molecule_has_no_stress(tmp_path: Path) -> None:
    atoms = molecule("H2O")
    atoms.info.update(REF_virials=np.zeros((3, 3)), REF_stress=np.zeros((3, 3)), energy=-1.0)
    ase.io.write(tmp_path / "a.extxyz", atoms)
    assert read_dataset(tmp_path / "a.extxyz").frames[0].stress is None


@pytest.mark.parametrize("bad", [np.ones(4), np.array([[0, 1.0, 0], [0, 0, 0], [0, 0, 0]])], ids=["shape", "symmetry"])
def test_stress_that_is_none(tmp_path: Path, bad: np.ndarray) -> None:
    atoms = crystal()
    atoms.info["REF_stress"] = bad
    ase.io.write(tmp_path / "a.extxyz", atoms)
    with pytest.raises(DataError, match=r"frame 0 has info\['REF_stress'\]"):
        read_dataset(tmp_path / "a.extxyz")


def write_header(file: Path, *headers: str) -> Path:
    """Frames of two hydrogen atoms at 1.5 with a force of 0.5 on each, and energy -1."""
    text = ""
    for header in headers:
        text += (
            f"2\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1.0 {header}\nH 0 0 0 0 0 -0.5\nH 0 0 1.5 0 0 0.5\n"
        )
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("header", "length", "energy", "force"),
    [
        ("energy-unit=hartree", 1.0, HARTREE, HARTREE),
        ("energy_unit=kcal/mol", 1.0, KCAL, KCAL),
        ("energy_units=Ha force_units=Ha/Bohr", 1.0, HARTREE, HARTREE / BOHR),
        ('units="Hartree, Bohr"', BOHR, HARTREE, HARTREE / BOHR),
        ('units="eV, Å, meV/Å"', 1.0, 1.0, 1e-3),
        ("units=au", BOHR, HARTREE, HARTREE / BOHR),
        ("units=real", 1.0, KCAL, KCAL),
        ("length_unit=nm forces_unit=eV/Ang", 10.0, 1.0, 1.0),
        ("e_unit=eV r_unit=bohr", BOHR, 1.0, 1.0 / BOHR),
    ],
)
def test_units_that_a_header_states(tmp_path: Path, header: str, length: float, energy: float, force: float) -> None:
    dataset = read_dataset(write_header(tmp_path / "a.extxyz", header, header))
    for frame in dataset.frames:
        assert frame.energy == pytest.approx(-energy, rel=1e-8)
        np.testing.assert_allclose(frame.forces[:, 2], [-0.5 * force, 0.5 * force], rtol=1e-7)
        assert frame.geometry.positions[1, 2] == pytest.approx(1.5 * length, rel=1e-8)
    assert "as the file says" in dataset.units


def test_a_unit_that_contradicts_the_file(tmp_path: Path) -> None:
    file = write_header(tmp_path / "a.extxyz", "energy-unit=hartree")
    with pytest.raises(DataError, match=r"energy_unit is 'eV', but the file says info\['energy-unit'\] = 'hartree'"):
        read_dataset(file, energy_unit="eV")
    assert read_dataset(file, energy_unit="Ha").frames[0].energy == pytest.approx(-HARTREE, rel=1e-8)
    file = write_header(tmp_path / "b.extxyz", "units=stones")
    with pytest.raises(DataError, match=r"info\['units'\] = 'stones'; expected units such as"):
        read_dataset(file)
    assert read_dataset(file, energy_unit="Ha").frames[0].energy == pytest.approx(-HARTREE, rel=1e-8)


def test_frames_that_state_different_units(tmp_path: Path) -> None:
    file = write_header(tmp_path / "a.extxyz", "energy_unit=eV", "energy_unit=Ha")
    with pytest.raises(DataError, match="frame 1 states other units than frame 0"):
        read_dataset(file)


@pytest.mark.parametrize(
    ("said", "length", "energy", "force"),
    [
        ({"e_unit": "Ha", "r_unit": "bohr"}, BOHR, HARTREE, HARTREE / BOHR),
        ({"e_unit": "kJ/mol", "r_unit": "Ang", "f_unit": "eV/Ang"}, 1.0, KJ, 1.0),
        ({"r_unit": "nm"}, 10.0, KCAL, KCAL / 10),
    ],
)
def test_units_that_an_npz_states(
    tmp_path: Path, said: dict[str, str], length: float, energy: float, force: float
) -> None:
    positions = molecule("H2O").positions
    np.savez(tmp_path / "a.npz", R=positions[None], z=[8, 1, 1], E=[-2.0], F=FORCES[None], **said)
    (frame,) = read_dataset(tmp_path / "a.npz").frames
    assert frame.energy == pytest.approx(-2.0 * energy, rel=1e-8)
    np.testing.assert_allclose(frame.forces, FORCES * force, rtol=1e-7)
    np.testing.assert_allclose(frame.geometry.positions, positions * length, rtol=1e-8)


def test_an_npz_with_a_lattice_is_a_crystal(tmp_path: Path) -> None:
    """Whose columns are the lattice vectors, as sGDML's own converter from extxyz writes it: ``cell.T``."""
    cell = np.array([[4.0, 0, 0], [1.0, 5.0, 0], [0.5, 0.25, 6.0]])
    atoms = Atoms("H2O", molecule("H2O").positions[[1, 2, 0]], cell=cell, pbc=True)
    content = {"R": atoms.positions[None], "z": atoms.numbers, "E": [-1.0], "F": FORCES[None], "e_unit": "eV"}
    np.savez(tmp_path / "a.npz", lattice=cell.T, **content)
    (frame,) = read_dataset(tmp_path / "a.npz").frames
    np.testing.assert_array_equal(frame.geometry.cell, cell)
    assert frame.geometry.pbc.all()
    assert frame.atoms().get_volume() == pytest.approx(4.0 * 5.0 * 6.0)
    np.savez(tmp_path / "b.npz", lattice=np.ones(3), **content)
    with pytest.raises(DataError, match=r"lattice has shape \(3,\); expected \(3, 3\)"):
        read_dataset(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("metadata", "energy"),
    [
        ({"units": "Hartree"}, HARTREE),
        ({"energy_unit": "kcal/mol"}, KCAL),
        ({"units": {"energy": "Ha", "forces": "eV/Å"}}, HARTREE),
        ({"units": "total_energy eV, atomic_forces eV/Å, positions Å"}, 1.0),
        ({"units": "as in the paper"}, 1.0),
        ({}, 1.0),
    ],
)
def test_units_that_the_metadata_of_a_database_state(
    tmp_path: Path, metadata: dict[str, object], energy: float
) -> None:
    with ase.db.connect(tmp_path / "a.db") as database:
        database.metadata = metadata
        database.write(labelled(molecule("H2O"), energy=-2.5, forces=FORCES))
    dataset = read_dataset(tmp_path / "a.db")
    assert dataset.frames[0].energy == pytest.approx(-2.5 * energy, rel=1e-8)
    assert ("as the file says" in dataset.units) == (energy != 1.0)
