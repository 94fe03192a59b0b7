"""Atoms without neighbours: the compiled search finds what NumPy's does."""

import numpy as np
import pytest

from schnet_ase.geometry.neighbors import half_neighbor_list, lone_atoms
from schnet_ase.geometry.system import Geometry
from schnet_ase.inference.lone import compiled_lone_atoms


@pytest.mark.parametrize("pbc", [(False, False, False), (True, False, True), (True, True, True)])
def test_the_same_atoms(pbc):
    rng = np.random.default_rng(0)
    cell = np.diag([30.0, 28.0, 26.0]) + rng.uniform(-3.0, 3.0, (3, 3))
    found = 0
    for n_atoms in (2, 20, 40, 80):
        positions = rng.uniform(-0.5, 1.5, (n_atoms, 3)) @ cell
        system = Geometry(np.ones(n_atoms, dtype=np.int64), positions, cell, np.array(pbc))
        pairs = half_neighbor_list(positions, cell, system.pbc, 7.0)
        expected = lone_atoms(system, pairs, 6.0)
        np.testing.assert_array_equal(compiled_lone_atoms(system, pairs, 6.0), expected)
        found += len(expected)
    assert 0 < found < 142


def test_one_atom_and_no_cutoff():
    system = Geometry(np.ones(1, dtype=np.int64), np.zeros((1, 3)), np.zeros((3, 3)), np.zeros(3, dtype=bool))
    pairs = half_neighbor_list(system.positions, system.cell, system.pbc, 6.0)
    assert compiled_lone_atoms(system, pairs, 6.0).size == 0
    assert compiled_lone_atoms(system, pairs, None).size == 0
