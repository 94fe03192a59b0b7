"""The structure that belongs to an entry."""

from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

import schnet_ase
from schnet_ase.errors import RegistryError, StructureError
from tests.support.entries import make_entry, one_line


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCHNET_ASE_MODELS", str(tmp_path / "models"))
    make_entry(tmp_path / "models")
    return tmp_path / "models"


def test_name_member_and_folder_give_the_atoms_of_the_card(root: Path) -> None:
    expected = molecule("CH3CH2OH")
    for name in ("ethanol", "ethanol/fold-1", root / "ethanol", str(root / "ethanol")):
        atoms = schnet_ase.structure(name)
        assert atoms.get_chemical_symbols() == expected.get_chemical_symbols()
        assert np.array_equal(atoms.positions, expected.positions)
        assert not atoms.pbc.any()
        assert atoms.calc is None


def test_atoms_are_new_each_time(root: Path) -> None:
    schnet_ase.structure("ethanol").positions += 1.0
    assert np.array_equal(schnet_ase.structure("ethanol").positions, molecule("CH3CH2OH").positions)


def test_an_unknown_name_is_one_line_with_a_suggestion(root: Path) -> None:
    with pytest.raises(RegistryError) as caught:
        schnet_ase.structure("ethanl")
    assert "did you mean ethanol" in one_line(caught)


def test_files_and_other_folders_have_none(root: Path) -> None:
    for name, what in ((root / "ethanol" / "fold-0.safetensors", "is a file"), (root, "is no registry entry")):
        with pytest.raises(StructureError) as caught:
            schnet_ase.structure(name)
        assert what in one_line(caught)
