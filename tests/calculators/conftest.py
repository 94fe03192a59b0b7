"""Atoms and ensembles for the tests of calculators."""

from pathlib import Path

import pytest
from ase import Atoms

from schnet_ase import SchNet, save_model
from tests.support.factories import ModelFactory


@pytest.fixture
def cube() -> Atoms:
    """Sixteen atoms in a cell that barostats of any kind take."""
    atoms = Atoms("CO", [[0, 0, 0], [1.5, 1.4, 1.6]], cell=[3.2] * 3, pbc=True) * (2, 2, 2)
    atoms.rattle(0.05, seed=2)
    return atoms


M = 3


@pytest.fixture
def members(make_model: ModelFactory) -> list[SchNet]:
    return [make_model(seed) for seed in range(M)]


@pytest.fixture
def folder(members: list[SchNet], tmp_path: Path) -> Path:
    for m, model in enumerate(members):
        save_model(model, tmp_path / "ensemble" / f"fold-{m}.safetensors")
    return tmp_path / "ensemble"
