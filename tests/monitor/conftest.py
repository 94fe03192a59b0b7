"""Atoms that a monitor can watch."""

import numpy as np
import pytest
from ase.build import molecule
from ase.md.velocitydistribution import thermalize_momenta

from schnet_ase import SchNetEnsembleCalculator


@pytest.fixture
def atoms(make_model, tmp_path, monkeypatch):
    """Ethanol in motion with an untrained ensemble of small forces; files go into an empty folder."""
    monkeypatch.chdir(tmp_path)
    atoms = molecule("CH3CH2OH")
    models = [make_model(seed) for seed in range(3)]
    for model in models:
        model.scale.fill_(0.05)
    atoms.calc = SchNetEnsembleCalculator(models)
    thermalize_momenta(atoms, temperature_K=300, rng=np.random.default_rng(0))
    return atoms
