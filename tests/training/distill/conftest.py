"""A teacher of few steps, and what makes its dynamics short."""

from __future__ import annotations

import shutil

import pytest

from schnet_ase.training import crossval, load_config
from schnet_ase.training.distill import Sampling, dynamics
from tests.support.frames import TOML, write_run

STUDENT = "[training]\nsteps = 20\nvalidate_every = 5\nbatch_size = 4\nema = 0.9\nwarmup = 2\ncompile = false\n"
SAMPLING = Sampling(12, (20.0, 60.0))
"""Of a network that has seen forty frames and been taught little."""


@pytest.fixture(scope="session")
def taught(tmp_path_factory):
    """A folder with data, and in its ``models`` an ensemble of four, of them."""
    folder = tmp_path_factory.mktemp("teacher")
    crossval(load_config(write_run(folder, TOML + "compile = false\n")), folder / "run", folder / "models", workers=1)
    return folder


@pytest.fixture
def quick(monkeypatch):
    """Runs whose first frame comes after ten steps."""
    monkeypatch.setattr(dynamics, "SETTLE", 10)
    monkeypatch.setattr(dynamics, "SPACING", 10)


@pytest.fixture
def entry(taught, tmp_path, monkeypatch, quick):
    """A copy of the ensemble, found by its name."""
    shutil.copytree(taught / "models", tmp_path / "models")
    monkeypatch.setenv("SCHNET_ASE_MODELS", str(tmp_path / "models"))
    return tmp_path / "models" / "ethanol-emt"
