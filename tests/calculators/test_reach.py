"""Atoms without neighbours, found by a search or known from forces."""

import numpy as np
import pytest
from ase.build import molecule

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator
from schnet_ase.inference.evaluator import Evaluator


@pytest.fixture
def searches(monkeypatch):
    """Number of searches, as the length of a list."""
    made = []
    search = Evaluator.out_of_reach
    monkeypatch.setattr(Evaluator, "out_of_reach", lambda self, system: made.append(1) or search(self, system))
    return made


def turned_ethanol():
    """No component of a force is zero."""
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("engine", ["compiled", "autograd"])
def test_forces_on_all_atoms_spare_the_search(make_model, searches, members, engine):
    models = [make_model(seed, cutoff=5.0, envelope="cosine", gamma=None) for seed in range(members)]
    calculator = SchNetCalculator(models[0], engine=engine)
    if members > 1:
        calculator = SchNetEnsembleCalculator(models, engine=engine)
    atoms = turned_ethanol()
    atoms.calc = calculator
    assert not len(calculator.out_of_reach(atoms))
    assert len(searches) == 1  # nothing is known of these atoms yet
    assert np.all(atoms.get_forces())
    assert not len(calculator.out_of_reach(atoms))
    assert len(searches) == 1
    atoms.positions[5] += 20.0
    assert calculator.out_of_reach(atoms).tolist() == [5]  # before a calculation
    atoms.get_forces()
    assert calculator.out_of_reach(atoms).tolist() == [5]  # and after it
