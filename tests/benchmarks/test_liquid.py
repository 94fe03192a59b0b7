"""The benchmark of a liquid: g(r) and the whole command, on systems known by hand."""

from dataclasses import replace

import liquid
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from click.testing import CliRunner

from schnet_ase import SchNet, SchNetConfig, save_model
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import Structure, read_card, write_card
from tests.support.ensembles import calibrated, simulate
from tests.support.entries import errors, make_entry

CONFIG = SchNetConfig(n_features=4, n_interactions=1, n_rbf=8, cutoff=3.0, envelope="cosine", readout_features=4)


def box(n=2, spacing=3.2):
    """n³ water molecules on a cubic grid, those at the faces cut in two by the boundary."""
    atoms = molecule("H2O")
    atoms.set_cell([spacing] * 3)
    atoms.pbc = True
    atoms = atoms * (n, n, n)
    atoms.wrap()
    return atoms


def test_the_first_maximum_is_the_distance_of_neighbours():
    crystal = bulk("O", "sc", a=2.5) * (5, 5, 5)
    found = liquid.radial_distribution([crystal], [crystal, crystal], "O")
    np.testing.assert_array_equal(found.run, found.frames)
    first = found.distance[np.flatnonzero(found.run)[0]]
    assert abs(first - 2.5) < found.distance[1] - found.distance[0]


def test_g_of_an_ideal_gas_is_one():
    rng = np.random.default_rng(0)
    gas = [Atoms("O50", rng.uniform(0.0, 10.0, (50, 3)), cell=[10.0] * 3, pbc=True) for _ in range(40)]
    found = liquid.radial_distribution(gas, gas, "O")
    far = found.distance > 2.0  # where there are enough pairs
    assert abs(found.run[far].mean() - 1.0) < 0.05


def make_calibrated(card):
    """Write a card again, with a calibration of its members."""
    members = tuple(member.sha256 for member in card.members)
    calibration = replace(calibrated(simulate(np.random.default_rng(0), 40)), members=members)
    write_card(replace(card, calibration=calibration), card.path)
    return read_card(card.path)


@pytest.fixture
def entry(tmp_path):
    """Of a liquid."""
    card = make_entry(tmp_path, "liquid", (errors(0.1),) * 5)
    members = []
    for k, member in enumerate(card.members):
        model = SchNet(CONFIG)
        model.elements = (1, 8)
        model.scale.fill_(1e-3)  # atoms fly nearly straight
        save_model(model, card.path / member.file, seed=k)
        members.append(replace(member, sha256=sha256(card.path / member.file)))
    structure = Structure.from_atoms(box())
    return make_calibrated(replace(card, elements=("H", "O"), members=tuple(members), structure=structure))


@pytest.fixture
def frames(tmp_path):
    structure = box()
    structure.info["energy"] = 0.0
    structure.arrays["forces"] = np.full((len(structure), 3), 0.1)
    structure.write(tmp_path / "frames.extxyz")
    return str(tmp_path / "frames.extxyz")


def test_the_command_writes_a_page_and_a_picture(entry, frames, tmp_path):
    arguments = [str(entry.path), frames, "--picoseconds", "0.1", "--equilibration", "0.05", "--temperature", "10"]
    result = CliRunner().invoke(
        liquid.main, [*arguments, "--runs", str(tmp_path / "run"), "--output", str(tmp_path / "docs")]
    )
    assert result.exit_code == 0, result.output
    page = (tmp_path / "docs" / "liquid.md").read_text()
    assert "0.1 ps at 10 K: stable; " in page
    assert "| protons on another atom at its end | 0 |" in page
    assert (tmp_path / "docs" / "liquid.png").exists()


def test_a_run_ends_where_a_bond_breaks(entry, frames, tmp_path):
    """And has no g(r)."""
    options = ["--picoseconds", "50", "--temperature", "50000", "--runs", str(tmp_path / "run")]
    result = CliRunner().invoke(liquid.main, [str(entry.path), frames, *options])
    assert result.exit_code == 0, result.output
    assert "50 ps at 50000 K: a bond broke after 0." in result.output
    assert "g(r)" not in result.output.partition("# liquid")[2]


def test_its_forces_and_stress_are_derivatives(entry):
    found = liquid.finite_differences(box(), entry)
    assert found.forces < 1e-5
    assert found.stress < 1e-6


def test_a_molecule_is_refused(tmp_path):
    card = make_calibrated(make_entry(tmp_path, "small", (errors(0.1),) * 5))
    result = CliRunner().invoke(liquid.main, [str(card.path), "frames.extxyz"])
    assert result.exit_code == 2
    assert "expected a liquid, periodic in three directions" in result.output


def test_an_element_that_is_not_there_is_refused(entry):
    result = CliRunner().invoke(liquid.main, [str(entry.path), "frames.extxyz", "--element", "N"])
    assert result.exit_code == 2
    assert "--element N: not in liquid, which is H16O8" in result.output
