"""Labelled frames for the tests of readers and of the summary."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from schnet_ase.data import Frame
from tests.support.frames import labelled_ethanol
from tests.support.summaries import frame
from tests.support.trajectories import N_FRAMES, labelled_atoms


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """The numbers of a water trajectory: positions (n, 3, 3), energies (n,), forces (n, 3, 3)."""
    rng = np.random.default_rng(0)
    positions = molecule("H2O").positions + rng.normal(0, 0.05, (N_FRAMES, 3, 3))
    return {"R": positions, "E": rng.normal(-4e4, 5, N_FRAMES), "F": rng.normal(0, 20, (N_FRAMES, 3, 3))}


@pytest.fixture
def frames(arrays: dict[str, np.ndarray]) -> list[Atoms]:
    """The same trajectory as atoms with labels, taken to be in eV."""
    return labelled_atoms(arrays)


@pytest.fixture(scope="module")
def good() -> list[Frame]:
    """Ethanol at random: nothing is wrong with it."""
    return [frame(a, a.get_potential_energy(), a.get_forces()) for a in labelled_ethanol(100)]
