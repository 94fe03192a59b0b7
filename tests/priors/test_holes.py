"""A shipped network has holes where two atoms nearly coincide; beside the repulsion it has none."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from schnet_ase import SchNet, SchNetCalculator, load_model
from schnet_ase.registry.lookup import get_card

DISTANCES = np.array([0.3, 0.2, 0.12, 0.08, 0.05])


@pytest.fixture(scope="module")
def ethanol():
    return get_card("rmd17-ethanol").structure.atoms()


def pressed(model, atoms):
    """(pairs, distances) eV above the molecule's energy, of each pair of atoms moved to each distance."""
    calculator = SchNetCalculator(model)
    energies = []
    for first, second in itertools.combinations(range(len(atoms)), 2):
        for r in DISTANCES:
            moved = atoms.copy()
            moved.set_distance(first, second, r, fix=0)
            energies.append(calculator.get_potential_energy(moved) - calculator.get_potential_energy(atoms))
    return np.array(energies).reshape(-1, len(DISTANCES))


def test_pairs_pressed_together(ethanol):
    shipped = load_model("rmd17-ethanol/fold-1")
    bare, model = (SchNet(replace(shipped.config, prior=prior)) for prior in (None, "zbl"))
    for network in (bare, model):
        network.load_state_dict(shipped.state_dict())
        network.elements = shipped.elements
    without, with_prior = pressed(bare, ethanol), pressed(model, ethanol)
    assert without.min() < 5.0, "the network alone lets two atoms meet for the price of a bond"
    assert (np.diff(with_prior, axis=1) > 0.0).all()
    assert with_prior[:, -1].min() > 100.0
    # The molecule itself is out of the repulsion's reach: its energy is that of the network.
    energies = [SchNetCalculator(m).get_potential_energy(ethanol) for m in (bare, model)]
    assert energies[0] == energies[1]
