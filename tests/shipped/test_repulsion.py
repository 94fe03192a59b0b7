"""No two atoms of a shipped entry with the repulsion of nuclei can fall into each other."""

import itertools

import numpy as np
import pytest
from ase import Atoms

from schnet_ase import SchNetCalculator, list_models, load_model

NEAR = np.array([0.1, 0.08, 0.06, 0.05])
"""Å; here the repulsion is stronger than any pull of the networks. Two H repel so weakly that networks trained without
the term pull them together down to 0.15 Å, into a hole that has a bottom."""
FARTHER = np.arange(0.15, 2.0, 0.05)
REPELLING = [card for card in list_models() if load_model(f"{card.name}/fold-1").config.prior == "zbl"]


def test_the_entries_of_molecules_have_it():
    without = {card.name for card in list_models()} - {card.name for card in REPELLING}
    assert without <= {"qm9-u0", "3bpa", "rmd17-all", "water"}


def along(calculator, pair, distances):
    """Energies, and the forces that push the second atom away."""
    found = []
    for r in distances:
        atoms = Atoms(pair, positions=[(0.0, 0.0, 0.0), (0.0, 0.0, r)])
        atoms.calc = calculator
        found.append((atoms.get_potential_energy(), atoms.get_forces()[1, 2]))
    return np.array(found).T


@pytest.mark.parametrize("card", REPELLING, ids=lambda card: card.name)
def test_the_energy_of_two_atoms_rises_without_end_as_they_meet(card):
    calculator = SchNetCalculator(f"{card.name}/fold-1", dtype="float64")
    for pair in itertools.combinations_with_replacement(card.elements, 2):
        energies, pushes = along(calculator, pair, NEAR)
        assert np.all(np.diff(energies) > 0.0), (pair, energies)
        assert np.all(pushes > 0.0), (pair, pushes)
        if pair != ("H", "H"):
            assert energies[-1] > along(calculator, pair, FARTHER)[0].max(), pair
