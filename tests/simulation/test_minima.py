"""How far apart members put a minimum: known minima, rotations, members that fly apart, and what `relax` says of it."""

import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.morse import MorsePotential
from scipy.spatial.transform import Rotation

from schnet_ase.simulation.minima import distance, minima_deviation, single_members


def dimer(length):
    return Atoms("O2", [(0, 0, 0), (length, 0, 0)])


def test_members_with_known_minima():
    """Bond lengths of 1.5, 1.6 and 1.7 Å around 1.6 Å: each of two members moves both atoms by 0.05 Å."""
    members = [MorsePotential(r0=r, rho0=3.0, epsilon=1.0) for r in (1.5, 1.6, 1.7)]
    assert minima_deviation(dimer(1.6), members, 1e-5) == pytest.approx(math.sqrt((0.05**2 + 0.05**2) / 2), abs=1e-4)


def test_hydrogen_does_not_count_beside_heavy_atoms():
    class Apart(Calculator):
        implemented_properties = ("energy", "forces")

        def __init__(self, length):
            super().__init__()
            self.length = length

        def calculate(self, atoms=None, properties=(), system_changes=()):
            along = atoms.positions[1] - atoms.positions[0]
            r = np.linalg.norm(along)
            force = -10.0 * (r - self.length) * along / r
            self.results = {"energy": 5.0 * (r - self.length) ** 2, "forces": np.array([-force, force])}

    members = [Apart(1.0), Apart(1.2)]
    water = Atoms("OH", [(0, 0, 0), (1.1, 0, 0)])
    assert minima_deviation(water, members, 1e-4) == pytest.approx(0.0, abs=1e-9)
    only = Atoms("H2", [(0, 0, 0), (1.1, 0, 0)])
    assert minima_deviation(only, members, 1e-6) == pytest.approx(0.05 * math.sqrt(2), abs=1e-5)


def test_members_that_agree_on_a_crystal():
    copper = bulk("Cu", cubic=True)
    copper.rattle(0.05, seed=0)
    two, three = (minima_deviation(copper, [EMT() for _ in range(n)], 0.02) for n in (2, 3))
    assert two == pytest.approx(three / math.sqrt(0.75), rel=1e-9)
    assert distance(copper.positions + 1.0, copper.positions, turned=False) == pytest.approx(0.0, abs=1e-12)


def test_one_network_has_no_spread():
    assert math.isnan(minima_deviation(dimer(1.6), [MorsePotential()], 0.01))
    assert single_members("rmd17-ethanol/fold-1", None, "float64") == []


def test_a_member_whose_atoms_fly_apart_has_no_minimum():
    class Explosion(Calculator):
        implemented_properties = ("energy", "forces")

        def calculate(self, atoms=None, properties=(), system_changes=()):
            centre = atoms.positions - atoms.positions.mean(axis=0)
            self.results = {"energy": -50.0 * np.square(centre).sum(), "forces": 100.0 * centre}

    assert minima_deviation(molecule("C6H6"), [Explosion(), Explosion()], 0.01) == math.inf


@pytest.mark.parametrize("n_atoms", [1, 2, 3, 7])
def test_structures_are_compared_after_the_best_rotation(n_atoms):
    rng = np.random.default_rng(n_atoms)
    a, b = rng.standard_normal((2, n_atoms, 3))
    assert distance(a, a @ Rotation.random(rng=rng).as_matrix().T + 3.0) < 1e-7
    radius = np.sqrt(np.square(a - a.mean(axis=0)).sum(axis=1).mean())
    assert distance(a, 1.2 * a) == pytest.approx(0.2 * radius)
    if n_atoms > 2:
        best = Rotation.align_vectors(a - a.mean(axis=0), b - b.mean(axis=0))[1] / np.sqrt(n_atoms)
        assert distance(a, b) == pytest.approx(best)


def test_a_mirror_image_is_another_structure():
    a = np.random.default_rng(0).standard_normal((6, 3))
    assert distance(a, a * [1, 1, -1]) > 0.1
