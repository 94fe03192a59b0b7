"""Structures from SDF files and SMILES."""

import sys

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write

from schnet_ase.errors import StructureError
from schnet_ase.simulation.structures import from_smiles, read_structures

ION = """acetate
  by hand

  3  2  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.1000 C   0  0  0  0  0  0  0  0  0  0  0  0
    1.2500    0.0000    0.0000 O   0  0  0  0  0  0  0  0  0  0  0  0
   -0.6000    1.1000    0.0000 O   0  0  0  0  0  0  0  0  0  0  0  0
  1  2  2  0
  1  3  1  0
M  CHG  1   3  -1
M  END
> <energy>
-1.0

$$$$
"""
RADICAL = """
  2  1

  2  1  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 O   0  0  0  0  0  0  0  0  0  0  0  0
    0.9700    0.0000    0.0000 H   0  0  0  0  0  0  0  0  0  0  0  0
  1  2  1  0
M  RAD  1   1   2
M  END
$$$$
"""


def test_every_record_of_an_sdf_file_with_charge_and_radical(tmp_path):
    (tmp_path / "a.sdf").write_text(ION + RADICAL)
    ion, radical = read_structures(tmp_path / "a.sdf")
    assert ion.get_chemical_formula() == "CO2"
    assert ion.info == {"name": "acetate", "charge": -1}
    assert ion.positions[2] == pytest.approx([-0.6, 1.1, 0.0])
    assert radical.info == {"unpaired_electrons": 1}  # an empty name would lose the next key in extxyz
    assert len(read_structures(tmp_path / "a.sdf", -1)) == 1


def test_the_charges_in_the_lines_of_atoms(tmp_path):
    text = ION.replace("M  CHG  1   3  -1\n", "").replace(" O   0  0  0  0", " O   0  5  0  0", 1)
    (tmp_path / "a.sdf").write_text(text)
    assert read_structures(tmp_path / "a.sdf")[0].info["charge"] == -1


def test_isotopes_have_their_masses(tmp_path):
    (tmp_path / "a.sdf").write_text(ION.replace("M  CHG", "M  ISO  2   1  13   3  18\nM  CHG", 1))
    (ion,) = read_structures(tmp_path / "a.sdf")
    assert ion.get_masses() == pytest.approx([13.0, 15.999, 18.0])
    assert ion.info["charge"] == -1


def test_what_ase_writes(tmp_path):
    ethanol = molecule("CH3CH2OH")
    write(tmp_path / "e.sdf", ethanol)
    (found,) = read_structures(tmp_path / "e.sdf")
    assert found.positions == pytest.approx(ethanol.positions, abs=1e-4)
    assert "charge" not in found.info


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ION.replace("V2000", "V3000"), "record 0 is a molfile V3000"),
        ("nonsense\n$$$$\nnonsense\n$$$$\n", "record 0 is no molfile"),
        (ION.replace("    1.2500", "    one.25"), "record 0: its atoms cannot be read.*mend the record or remove it"),
        (ION.replace("  by hand", "     RDKit          2D").replace("0.1000 C", "0.0000 C"), "two dimensions"),
        ("", "no structure in it"),
    ],
)
def test_records_that_are_refused(tmp_path, text, words):
    (tmp_path / "a.sdf").write_text(text)
    with pytest.raises(StructureError, match=words):
        read_structures(tmp_path / "a.sdf")


def test_records_that_are_refused_beside_others(tmp_path):
    (tmp_path / "a.sdf").write_text(ION + "nonsense\n$$$$\n" + RADICAL + ION.replace("V2000", "V3000"))
    found = read_structures(tmp_path / "a.sdf")
    assert [len(atoms) for atoms in found] == [3, 0, 2, 0]
    assert "record 1 is no molfile" in found[1].info["unreadable"]
    with pytest.raises(StructureError, match="record 3 is a molfile V3000"):
        read_structures(tmp_path / "a.sdf", -1)


def test_files_that_are_not_there_or_no_structures(tmp_path):
    with pytest.raises(StructureError, match="no such file"):
        read_structures(tmp_path / "a.xyz")
    (tmp_path / "b.xyz").write_text("words\n")
    with pytest.raises(StructureError, match=r"b\.xyz: not a structure"):
        read_structures(tmp_path / "b.xyz")
    (tmp_path / "c.xyz").write_text("1\nProperties=few\nO 0 0 0\n")  # ASE finds no atoms
    with pytest.raises(StructureError, match=r"c\.xyz: no structure in it.* empty that line"):
        read_structures(tmp_path / "c.xyz")


def test_a_smiles_is_the_molecule(tmp_path):
    pytest.importorskip("rdkit")
    ethanol = from_smiles("CCO")
    assert ethanol.get_chemical_formula() == "C2H6O"
    assert ethanol.info == {"name": "CCO"}
    assert ethanol.get_distance(0, 1) == pytest.approx(1.52, abs=0.05)
    assert np.array_equal(from_smiles("CCO").positions, ethanol.positions)
    assert from_smiles("C[NH3+]").info["charge"] == 1
    assert from_smiles("[CH3]").info["unpaired_electrons"] == 1
    with pytest.raises(StructureError, match="no SMILES"):
        from_smiles("CC(")


def test_the_molecules_of_one_smiles_do_not_overlap():
    pytest.importorskip("rdkit")
    for smiles, first in (("O.O", [0, 2, 3]), ("C[NH3+].[Cl-]", [0, 1, 3, 4, 5, 6, 7, 8]), ("c1ccccc1.O.O", None)):
        atoms = from_smiles(smiles)
        apart = atoms.get_all_distances() + 10.0 * np.eye(len(atoms))
        assert apart.min() > 0.9
        if first is not None:
            others = [index for index in range(len(atoms)) if index not in first]
            assert 2.4 < apart[np.ix_(first, others)].min() < 5.0


def test_isotopes_of_a_smiles_have_their_masses():
    pytest.importorskip("rdkit")
    masses = from_smiles("[2H]O[13CH3]").get_masses()
    assert masses == pytest.approx([2.0141, 15.999, 13.0034, 1.008, 1.008, 1.008], abs=1e-3)


def test_an_atom_of_no_element_is_refused(capfd):
    pytest.importorskip("rdkit")
    with pytest.raises(StructureError, match=r"'\*C' has an atom of no element \(\*\)"):
        from_smiles("*C")
    assert capfd.readouterr().err == ""


def test_rdkit_prints_nothing_of_atoms_that_no_force_field_knows(capfd):
    pytest.importorskip("rdkit")
    assert from_smiles("[He]").get_chemical_formula() == "He"
    assert capfd.readouterr().err == ""


def test_a_smiles_without_rdkit_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(StructureError, match=r"schnet_ase\[organic\]"):
        from_smiles("CCO")
