"""The benchmark of a liquid: g(r), broken molecules and the whole command, on systems known by hand."""

import sys
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


def test_molecules_across_the_boundary_are_whole_until_they_break():
    atoms = box()
    assert atoms.get_distance(0, 1, mic=False) > 2.0, "no molecule of the test crosses the boundary"
    moved = atoms.copy()
    moved.positions += 1.0  # unwrapped, as dynamics leaves it
    stretched = moved.copy()
    stretched.positions[1] += 0.7 * (lambda v: v / np.linalg.norm(v))(moved.get_distance(0, 1, mic=True, vector=True))
    lost = moved.copy()
    lost.positions[:] = np.nan
    assert liquid.until_broken([atoms, moved]) is None
    assert liquid.until_broken([atoms, moved, stretched]) == 2
    assert liquid.until_broken([atoms, lost]) == 1


def test_a_proton_may_change_sides_but_not_be_lost():
    atoms = box()
    oxygens = np.flatnonzero(atoms.numbers == 8)
    vector = atoms.get_distance(oxygens[0], oxygens[1], mic=True, vector=True)
    shared, over, lost = atoms.copy(), atoms.copy(), atoms.copy()
    for moved, fraction in ((shared, 0.5), (over, 0.7)):
        moved.positions[1] = atoms.positions[oxygens[0]] + fraction * vector
    lost.positions[1] = atoms.positions[oxygens[0]] + [1.6, 1.6, 1.6]  # the middle of eight of them
    bonds = liquid.Bonds(atoms)
    # Halfway between oxygens of 3.2 Å it is 0.6 Å off.
    assert [bonds.whole(a) for a in (atoms, over, shared, lost)] == [True, True, False, False]
    assert [bonds.moved(a) for a in (atoms, over)] == [0, 1]


def test_a_liquid_without_protons():
    bonds = liquid.Bonds(bulk("Ar", "fcc", a=5.3, cubic=True))
    assert bonds.whole(bulk("Ar", "fcc", a=5.5, cubic=True))
    assert bonds.moved(bulk("Ar", "fcc", a=5.5, cubic=True)) == 0


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


def test_the_command_writes_the_card_and_a_picture(entry, tmp_path, monkeypatch):
    frames = tmp_path / "frames.extxyz"
    structure = box()
    structure.info["energy"] = 0.0
    structure.arrays["forces"] = np.full((len(structure), 3), 0.1)
    structure.write(frames)
    monkeypatch.setattr(sys, "argv", ["liquid.py", "liquid"])
    arguments = [str(entry.path), str(frames), "--picoseconds", "0.1", "--equilibration", "0.05", "--temperature", "10"]
    result = CliRunner().invoke(
        liquid.main, [*arguments, "--runs", str(tmp_path / "run"), "--output", str(tmp_path / "docs")]
    )
    assert result.exit_code == 0, result.output
    new = read_card(entry.path)
    assert replace(new, dynamics=None, path=entry.path) == entry
    assert new.dynamics.lines()[0] in (tmp_path / "docs" / "liquid.md").read_text()
    assert (tmp_path / "docs" / "liquid.png").exists()
    assert len(new.dynamics.milliseconds) == 5


def test_a_run_ends_where_a_bond_breaks(entry, tmp_path):
    """And has no g(r)."""
    frames = tmp_path / "frames.extxyz"
    structure = box()
    structure.info["energy"] = 0.0
    structure.arrays["forces"] = np.full((len(structure), 3), 0.1)
    structure.write(frames)
    options = ["--picoseconds", "50", "--temperature", "50000", "--runs", str(tmp_path / "run")]
    result = CliRunner().invoke(liquid.main, [str(entry.path), str(frames), *options])
    assert result.exit_code == 0, result.output
    dynamics = read_card(entry.path).dynamics
    assert 0.0 < dynamics.stable < 1.0 < dynamics.picoseconds
    assert "a bond broke after" in result.output
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
