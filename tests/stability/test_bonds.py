"""Bonds of structures, against what is known by hand."""

import numpy as np
import pytest
from ase.build import bulk, molecule

from schnet_ase.registry.lookup import get_card
from schnet_ase.stability.bonds import BROKEN, find_bonds, first_broken


@pytest.mark.parametrize(("name", "shared"), [("acac", 1), ("rmd17-salicylic", 1), ("rmd17-ethanol", 0)])
def test_a_proton_between_two_oxygens_may_change_sides_and_not_leave(name, shared):
    atoms = get_card(name).structure.atoms()
    own, bonds = find_bonds(atoms, shared_protons=False), find_bonds(atoms)
    assert len(bonds.mean) == len(own.mean) + shared
    assert bonds.off(atoms.positions) == 0.0
    if shared:
        proton, oxygen, length = bonds.first[-1], bonds.second[-1], bonds.mean[-1]
        there = atoms.positions.copy()
        direction = there[proton] - there[oxygen]
        there[proton] = there[oxygen] + length * direction / np.linalg.norm(direction)
        assert own.off(there) > 0.3
        assert bonds.off(there) == pytest.approx(0.0, abs=1e-9)
        assert (bonds.holders(there) != bonds.holders(atoms.positions)).sum() == 1
        there[proton] += 5.0
        assert bonds.off(there) > BROKEN
    for bond in range(len(own.mean)):
        stretched = atoms.positions.copy()
        stretched[own.second[bond]] += 20.0
        assert bonds.off(stretched) > BROKEN


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("CH3CH2OH", {"C–C": 1, "O–C": 1, "O–H": 1, "C–H": 5}),
        ("C6H6", {"C–C": 6, "C–H": 6}),
        ("H2O", {"O–H": 2}),
        ("H2", {"H–H": 1}),
    ],
)
def test_bonds_of_molecules(name, kinds):
    names = find_bonds(molecule(name)).names()
    assert {kind: names.count(kind) for kind in set(names)} == kinds


def test_lengths_over_the_frames():
    atoms = molecule("CH3CH2OH")
    frames = atoms.positions + 0.02 * np.random.default_rng(0).normal(size=(50, len(atoms), 3))
    bonds = find_bonds(atoms, frames)
    lengths = [[np.linalg.norm(f[i] - f[j]) for i, j in zip(bonds.first, bonds.second, strict=True)] for f in frames]
    np.testing.assert_allclose(bonds.mean, np.mean(lengths, axis=0))
    np.testing.assert_allclose(bonds.lengths(frames), lengths)
    np.testing.assert_allclose(bonds.off(frames), np.abs(np.array(lengths) - bonds.mean).max(axis=1))


@pytest.mark.parametrize("by", [0.6, -0.6])
def test_the_bond_that_is_farthest_off_is_named(by):
    atoms = molecule("CH3CH2OH")
    bonds = find_bonds(atoms)
    assert str(atoms.symbols[2:4]) == "OH"
    atoms.set_distance(2, 3, atoms.get_distance(2, 3) + by, fix=0)
    assert bonds.off(atoms.positions) == pytest.approx(0.6)
    assert bonds.worst(atoms.positions) == "O2–H3"
    atoms.positions[3] = np.nan
    assert bonds.worst(atoms.positions) == "O2–H3"


def test_a_bond_is_broken_when_it_is_half_an_angstrom_off_either_way():
    off = np.full(200, 0.2)
    assert first_broken(off) is None
    for broken in (BROKEN + 0.01, np.nan, np.inf):
        off[120] = broken
        assert first_broken(off) == 120
    assert first_broken(np.array([BROKEN])) is None


def box(n=2, spacing=3.2):
    """n³ water molecules on a cubic grid, those at the faces cut in two by the boundary."""
    atoms = molecule("H2O")
    atoms.set_cell([spacing] * 3)
    atoms.pbc = True
    atoms = atoms * (n, n, n)
    atoms.wrap()
    return atoms


def test_molecules_across_the_boundary_are_whole_until_they_break():
    atoms = box()
    assert atoms.get_distance(0, 1, mic=False) > 2.0, "no molecule of the test crosses the boundary"
    bonds = find_bonds(atoms)
    assert bonds.off(atoms.positions) == 0.0
    moved = atoms.positions + 1.0  # unwrapped, as dynamics leaves it
    assert bonds.off(moved) < 1e-9
    vector = atoms.get_distance(0, 1, mic=True, vector=True)
    moved[1] += 0.7 * vector / np.linalg.norm(vector)
    assert BROKEN < bonds.off(moved) <= 0.7 + 1e-9
    assert np.isnan(bonds.off(np.full_like(moved, np.nan)))


def test_in_a_liquid_a_proton_may_go_to_any_molecule_but_not_be_lost():
    atoms = box()
    oxygens = np.flatnonzero(atoms.numbers == 8)
    vector = atoms.get_distance(oxygens[0], oxygens[1], mic=True, vector=True)
    shared, over, lost = (atoms.positions.copy() for _ in range(3))
    shared[1], over[1] = (atoms.positions[oxygens[0]] + fraction * vector for fraction in (0.5, 0.7))
    lost[1] = atoms.positions[oxygens[0]] + [1.6, 1.6, 1.6]  # the middle of eight of them
    bonds = find_bonds(atoms)
    # Halfway between oxygens of 3.2 Å it is 0.6 Å off.
    assert [bonds.off(p) <= BROKEN for p in (atoms.positions, over, shared, lost)] == [True, True, False, False]
    start = bonds.holders(atoms.positions)
    assert len(start) == 16
    assert [(bonds.holders(p) != start).sum() for p in (atoms.positions, over)] == [0, 1]


def test_a_slab_has_images_in_its_plane_only():
    """Two rows of a chain along x: farther apart in y and z than the cell, whose vectors there are no periods."""
    atoms = molecule("H2")
    atoms.positions = [[0.1, 0.0, 0.0], [2.9, 9.0, 0.0]]
    atoms.set_cell([3.0, 3.0, 3.0])
    atoms.pbc = [True, False, False]
    assert not len(find_bonds(atoms).mean)
    atoms.positions[1, 1] = 0.6
    (length,) = find_bonds(atoms).mean
    assert length == pytest.approx(np.hypot(0.2, 0.6))


def test_no_bonds():
    for atoms in (bulk("Ar", "fcc", a=5.3, cubic=True), molecule("H")):
        assert not len(find_bonds(atoms).mean)
