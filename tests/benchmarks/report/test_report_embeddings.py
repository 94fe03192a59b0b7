"""What the report shows of atoms: their environments, features and energies."""

import csv

import numpy as np
import pytest
from ase.build import molecule
from click.testing import CliRunner
from report import embeddings

from schnet_ase import SchNetCalculator, load_model
from schnet_ase.data import read_dataset
from schnet_ase.registry.loading import locate_members
from tests.support.entries import make_entry
from tests.support.frames import write_ethanol


@pytest.fixture
def entry(tmp_path, monkeypatch):
    monkeypatch.setenv("SCHNET_ASE_MODELS", str(tmp_path / "models"))
    make_entry(tmp_path / "models", "tiny")
    return "tiny"


def test_environments():
    assert sorted(embeddings.environments(molecule("CH3CH2OH"))) == [
        "C(CH2O)",
        "C(CH3)",
        *["H(C)"] * 5,
        "H(O)",
        "O(CH)",
    ]
    apart = molecule("OH")
    apart.positions[1] += 5.0
    assert embeddings.environments(apart) == ["O", "H"]


def test_energies_are_those_of_the_calculator(entry, tmp_path):
    frames = read_dataset(write_ethanol(tmp_path / "ethanol.extxyz", 35)).frames  # more than a batch
    members = [loaded.model for loaded in locate_members(entry)]
    seen = embeddings.look(load_model(entry), members, frames)
    atoms = frames[-1].atoms()
    for m, model in enumerate(members):
        atoms.calc = SchNetCalculator(model, dtype="float64", engine="autograd")
        reference = model.reference.numpy()[atoms.numbers]
        np.testing.assert_allclose(seen.energies[m, -9:], atoms.get_potential_energies() - reference, atol=1e-5)
    assert seen.features.shape == (35 * 9, 4)
    assert seen.environments[-9:] == embeddings.environments(atoms)


def test_projection_keeps_distances():
    features = np.random.default_rng(0).normal(size=(20, 5)) * [5.0, 3.0, 1.0, 0.5, 0.1]
    projection = embeddings.project(features)
    for i, j in ((0, 1), (3, 17)):
        distance = np.linalg.norm(projection.coordinates[i] - projection.coordinates[j])
        assert distance == pytest.approx(np.linalg.norm(features[i] - features[j]))
    variances = projection.coordinates.var(axis=0)
    np.testing.assert_allclose(projection.shares, variances / variances.sum())
    assert (np.diff(projection.shares) < 0).all()


def test_members_that_share_energies_out_differently():
    """Twice the same network, once with an offset for carbon: they agree on which atoms lie higher."""
    energies = np.random.default_rng(1).normal(size=20)
    shifted = energies + np.repeat([0.5, 0.0], 10)
    seen = embeddings.Seen(["C(H4)"] * 10 + ["H(C)"] * 10, np.zeros((20, 1)), np.array([energies, shifted]))
    (name, count, mean, std, between, agreement), hydrogen = embeddings.cells(seen)
    assert (name, count, agreement) == ("C(H4)", "10", "1.00")
    assert float(mean) == pytest.approx(energies[:10].mean() + 0.25, abs=1e-3)
    assert float(std) == pytest.approx(energies[:10].std(), abs=1e-3)
    assert float(between) == pytest.approx(0.5 / np.sqrt(2.0), abs=1e-3)
    assert hydrogen[4] == "0.000"


def test_embeddings(entry, tmp_path):
    file = write_ethanol(tmp_path / "ethanol.extxyz", 6)
    result = CliRunner().invoke(embeddings.main, [entry, str(file), "--frames", "4", "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    with (tmp_path / "embeddings-tiny.csv").open() as table:
        counts = {row["environment"]: int(row["atoms"]) for row in csv.DictReader(table)}
    assert counts == {"C(CH2O)": 4, "C(CH3)": 4, "H(C)": 20, "H(O)": 4, "O(CH)": 4}
    assert "cannot be observed" in (tmp_path / "embeddings-tiny.md").read_text()
    assert (tmp_path / "embeddings-tiny.png").read_bytes().startswith(b"\x89PNG")


def test_elements_that_the_network_does_not_know(entry, tmp_path):
    molecule("CH3SH").write(tmp_path / "thiol.extxyz")
    result = CliRunner().invoke(embeddings.main, [entry, str(tmp_path / "thiol.extxyz")])
    assert result.exit_code == 2
    assert "tiny was not trained on S; give frames of what it was trained on" in result.output
