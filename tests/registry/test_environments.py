"""What the training never saw is told apart before it is run: bonding, charges and unpaired electrons."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write

from schnet_ase.data import Dataset, Frame
from schnet_ase.errors import DataError, RegistryError
from schnet_ase.evaluation.environments import add_environments, farthest
from schnet_ase.geometry.system import geometry
from schnet_ase.registry.applicability import Taught, electrons
from schnet_ase.registry.environments import Environments, nearness, read_environments, write_environments
from schnet_ase.registry.install import install_entry
from schnet_ase.registry.lookup import get_card
from tests.support.paths import ROOT

ENTRY = "rmd17-ethanol"


@pytest.fixture(scope="module")
def relaxed():
    return get_card(ENTRY).structure.atoms()


def hydroxyl(atoms):
    """The oxygen of ethanol, its hydrogen and its carbon."""
    (oxygen,) = np.flatnonzero(atoms.numbers == 8)
    order = np.argsort(atoms.get_all_distances()[oxygen])
    hydrogen = next(i for i in order[1:] if atoms.numbers[i] == 1)
    carbon = next(i for i in order[1:] if atoms.numbers[i] == 6)
    return oxygen, hydrogen, carbon


def test_ethanol_is_like_its_training_frames(relaxed):
    assert nearness(ENTRY, relaxed).familiar
    assert nearness(f"{ENTRY}/fold-1", relaxed).familiar
    warm = relaxed.copy()
    warm.rattle(0.03, seed=3)
    assert nearness(ENTRY, warm).familiar
    line = nearness(ENTRY, relaxed).line()
    assert line.startswith("like the training frames")
    turned = relaxed.copy()
    turned.rotate(70, (1, 2, 3))
    turned.translate((5, 0, 0))
    assert nearness(ENTRY, turned[::-1]).largest == pytest.approx(nearness(ENTRY, relaxed).largest, rel=1e-4)


@pytest.mark.parametrize("name", ["CH3OH", "CH3OCH3", "CH3CHO", "C2H6", "H2O", "CO2", "C3H8", "H2CO"])
def test_other_molecules_are_told_apart(name):
    """Dimethyl ether has even the formula of ethanol."""
    assert not nearness(ENTRY, molecule(name)).familiar


def test_a_stretched_bond_is_told_apart_and_named(relaxed):
    oxygen, hydrogen, _ = hydroxyl(relaxed)
    largest = []
    for length in (1.0, 1.4, 1.8):
        stretched = relaxed.copy()
        stretched.set_distance(oxygen, hydrogen, length, fix=0)
        near = nearness(ENTRY, stretched)
        largest.append(near.largest)
    assert largest[0] < 1.0 < largest[1] < largest[2]
    assert set(np.argsort(-near.distances)[:2]) & {oxygen, hydrogen}
    assert any(f"{relaxed.symbols[i]}{i}" in near.line() for i in (oxygen, hydrogen))


def test_protonated_and_deprotonated_ethanol_are_told_apart(relaxed):
    oxygen, hydrogen, carbon = hydroxyl(relaxed)
    ion = relaxed.copy()
    away = relaxed.positions[oxygen] - 0.5 * (relaxed.positions[hydrogen] + relaxed.positions[carbon])
    ion.append("H")
    ion.positions[-1] = relaxed.positions[oxygen] + 0.98 * away / np.linalg.norm(away)
    ethoxide = relaxed.copy()
    del ethoxide[hydrogen]
    for atoms in (ion, ethoxide):
        assert not nearness(ENTRY, atoms).familiar
        known = Taught("it", ("C2H6O",), False, True)
        assert "odd number of electrons" in electrons(known, atoms)


def test_charges_and_unpaired_electrons_are_named(relaxed):
    known = Taught("it", None, None, False)
    assert electrons(known, relaxed) is None
    for info, words in (
        ({"charge": 1}, r"a charge of \+1 e"),
        ({"total_charge": "-2"}, "a charge of -2 e"),
        ({"multiplicity": 3}, "2 unpaired electrons"),
        ({"unpaired_electrons": 1}, "1 unpaired electron;"),
        ({"charge": 0, "multiplicity": 1}, None),
    ):
        atoms = relaxed.copy()
        atoms.info.update(info)
        if words is None:
            assert electrons(known, atoms) is None
        else:
            assert re.search(words, electrons(known, atoms))
    atoms = relaxed.copy()
    atoms.set_initial_charges([-0.5, -0.5, *[0.0] * 7])
    atoms.set_initial_magnetic_moments([0.5, 0.5, *[0.0] * 7])
    assert "a charge of -1 e and 1 unpaired electron" in electrons(known, atoms)


def test_what_the_command_line_says(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    write("methanol.xyz", molecule("CH3OH"))
    _, _, said = run("relax", ENTRY, "methanol.xyz", "--steps", 1, "--fmax", 100)
    assert "CH4O is not what this entry knows" in said
    assert "unlike the training frames: the surroundings of" in said
    _, _, said = run("relax", ENTRY, "--steps", 1, "--fmax", 100, "--output", "own")
    assert said.startswith("like the training frames: the farthest atom, ")


def frames_like(atoms, count, rng):
    made = []
    for _ in range(count):
        moved = atoms.copy()
        moved.positions += rng.normal(scale=0.03, size=(len(atoms), 3))
        made.append(Frame(geometry(moved), -1.0, np.zeros((len(atoms), 3))))
    return made


@pytest.fixture
def entry(tmp_path):
    """A copy of an entry without environments."""
    shutil.copytree(ROOT / "models" / "rmd17-benzene", tmp_path / "mine")
    return get_card("rmd17-benzene"), tmp_path / "mine"


def test_environments_of_an_entry_are_made_and_installed(entry, places, tmp_path):
    card, folder = entry
    rng = np.random.default_rng(0)
    dataset = Dataset(frames_like(card.structure.atoms(), 60, rng), "b.npz", "0" * 64, "eV")
    made = add_environments(replace(card, path=folder), dataset, per_element=20, command="by hand")
    assert (made.environments.per_element, made.environments.n_frames) == (20, 60)
    known = read_environments(folder / "environments.safetensors")
    assert {z: len(x) for z, x in known.references.items()} == {1: 20, 6: 20}
    others = [frame.atoms() for frame in frames_like(card.structure.atoms(), 40, rng)]
    assert np.mean([nearness(folder, atoms).familiar for atoms in others]) > 0.8
    assert not nearness(folder, molecule("C2H4")).familiar
    installed = install_entry("mine", folder)
    assert (installed.path / "environments.safetensors").read_bytes() == (
        folder / "environments.safetensors"
    ).read_bytes()
    (folder / "environments.safetensors").write_bytes(b"other")
    with pytest.raises(RegistryError, match="SHA-256 is not the one on the card"):
        nearness(folder, others[0])
    hydrogen = [Frame(geometry(molecule("H2")), 0.0, None)] * 20
    with pytest.raises(DataError, match="too few atoms of atomic number 6"):
        add_environments(replace(card, path=folder), dataset._replace(frames=hydrogen))


def test_each_of_the_farthest_is_the_farthest_from_those_before():
    points = np.random.default_rng(1).normal(size=(200, 3))
    chosen = farthest(points, 12)
    distances = np.linalg.norm(points[:, None] - chosen[None], axis=2)
    for k in range(1, 12):
        before = distances[:, :k].min(axis=1)
        assert np.linalg.norm(chosen[k] - chosen[:k], axis=1).min() == pytest.approx(before.max())
    assert len(farthest(points[:5], 12)) == 5


def test_a_file_of_environments_is_read_as_it_was_written(tmp_path):
    references = {1: np.eye(3), 8: np.full((1, 3), 0.5)}
    write_environments(Environments("fold-2", references, {1: 0.25, 8: 0.5}), tmp_path / "e.safetensors")
    known = read_environments(tmp_path / "e.safetensors")
    assert known.member == "fold-2"
    assert known.limits == {1: 0.25, 8: 0.5}
    assert all(np.array_equal(known.references[z], references[z]) for z in references)
