"""SchNetPack's databases: labels in `data`, units in the metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from schnet_ase.data import read_dataset
from schnet_ase.errors import DataError

HARTREE, BOHR = 27.21138602, 0.52917721067  # CODATA 2014
KCAL = 4184.0 / (6.022140857e23 * 1.6021766208e-19)
FORCES = np.array([[0.1, -0.2, 0.3], [0.0, 0.25, -0.5], [-0.1, -0.05, 0.2]])


def write_schnetpack(
    file: Path, frames: list[tuple[Atoms, dict[str, Any]]], units: dict[str, Any], length: str, **metadata: Any
) -> Path:
    """As `ASEAtomsData.create` and `add_system` of SchNetPack 2.1.1 do."""
    with ase.db.connect(file) as connection:
        connection.metadata = {"_property_unit_dict": units, "_distance_unit": length, "atomrefs": {}, **metadata}
        for atoms, data in frames:
            connection.write(Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc), data=data)
    return file


def one(energy: float = -2.5, **others: Any) -> list[tuple[Atoms, dict[str, Any]]]:
    return [(molecule("H2O"), {"energy": np.array([energy]), "forces": FORCES, **others})]


@pytest.mark.parametrize(
    ("energy", "force", "length", "expected"),
    [
        ("eV", "eV/Ang", "Ang", (1.0, 1.0, 1.0)),
        ("Hartree", "Hartree/Bohr", "Bohr", (HARTREE, HARTREE / BOHR, BOHR)),
        ("Ha", "Ha/Ang", "Ang", (HARTREE, HARTREE, 1.0)),
        ("kcal/mol", "kcal/mol/Ang", "Angstrom", (KCAL, KCAL, 1.0)),
        ("kcal/mol", "kcal/mol/Bohr", "Bohr", (KCAL, KCAL / BOHR, BOHR)),
        ("Hartree", "eV/Ang", "Ang", (HARTREE, 1.0, 1.0)),
        ("kJ/mol", "kJ/mol/nm", "nm", (1000 * KCAL / 4184, 100 * KCAL / 4184, 10.0)),
    ],
)
def test_units_of_the_metadata(
    tmp_path: Path, energy: str, force: str, length: str, expected: tuple[float, float, float]
) -> None:
    dataset = read_dataset(write_schnetpack(tmp_path / "a.db", one(), {"energy": energy, "forces": force}, length))
    (frame,) = dataset.frames
    assert frame.energy == pytest.approx(-2.5 * expected[0], rel=1e-8)
    np.testing.assert_allclose(frame.forces, FORCES * expected[1], rtol=1e-8)
    np.testing.assert_allclose(frame.geometry.positions, molecule("H2O").positions * expected[2], rtol=1e-8)
    assert "as the file says" in dataset.units


def test_units_go_with_the_property_that_is_read(tmp_path: Path) -> None:
    """As in SchNetPack's QM9: several energies, each with a unit, of which one must be named."""
    data = [
        (molecule("H2O"), {"energy_U0": np.array([-76.0]), "energy_U": np.array([-75.9]), "zpve": np.array([0.02])})
    ]
    units = {"energy_U0": "Hartree", "energy_U": "kcal/mol", "zpve": "eV"}
    file = write_schnetpack(tmp_path / "a.db", data, units, "Ang")
    with pytest.raises(DataError, match=r"data\['energy_U0'\] and data\['energy_U'\] differ"):
        read_dataset(file)
    assert read_dataset(file, energy_key="energy_U0").frames[0].energy == pytest.approx(-76.0 * HARTREE, rel=1e-8)
    assert read_dataset(file, energy_key="energy_U").frames[0].energy == pytest.approx(-75.9 * KCAL, rel=1e-8)


def test_stress_and_cells(tmp_path: Path) -> None:
    atoms, stress = bulk("Cu", cubic=True), np.diag([0.1, 0.2, 0.3])
    data = {"energy": np.array([-1.0]), "forces": np.zeros((4, 3)), "stress": stress[None]}
    units = {"energy": "Hartree", "forces": "Hartree/Bohr", "stress": "Hartree/Bohr/Bohr/Bohr"}
    (frame,) = read_dataset(write_schnetpack(tmp_path / "a.db", [(atoms, data)], units, "Bohr")).frames
    np.testing.assert_allclose(frame.stress, np.array([0.1, 0.2, 0.3, 0, 0, 0]) * HARTREE / BOHR**3, rtol=1e-8)
    np.testing.assert_allclose(frame.geometry.cell, atoms.cell.array * BOHR, rtol=1e-8)
    assert frame.geometry.pbc.all()


@pytest.mark.parametrize(("unit", "said"), [("stone", "'stone'"), ("arb. unit", "'arb. unit'"), (None, "'None'")])
def test_a_unit_that_is_not_known(tmp_path: Path, unit: str | None, said: str) -> None:
    file = write_schnetpack(tmp_path / "a.db", one(), {"energy": unit, "forces": "eV/Ang"}, "Ang")
    with pytest.raises(DataError, match=rf"the unit of data\['energy'\] is {said}; expected a unit of energy"):
        read_dataset(file)
    assert read_dataset(file, energy_unit="eV").frames[0].energy == -2.5


def test_a_unit_that_contradicts_the_metadata(tmp_path: Path) -> None:
    file = write_schnetpack(tmp_path / "a.db", one(), {"energy": "Hartree", "forces": "Hartree/Bohr"}, "Bohr")
    with pytest.raises(DataError, match="energy_unit is 'eV', but the file says"):
        read_dataset(file, energy_unit="eV")
    with pytest.raises(DataError, match="length_unit is 'Å', but the file says the unit of length = 'Bohr'"):
        read_dataset(file, length_unit="Å")


def test_atomrefs_are_said_and_left(tmp_path: Path) -> None:
    units, references = {"energy": "eV", "forces": "eV/Ang"}, {"energy": [0.0, -13.6, 0, 0, 0, 0, 0, 0, -2042.0]}
    dataset = read_dataset(write_schnetpack(tmp_path / "a.db", one(), units, "Ang", atomrefs=references))
    assert dataset.frames[0].energy == -2.5
    assert "atomrefs of energy" in dataset.notes[0]
