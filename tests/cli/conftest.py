"""A small ensemble that all tests of the command line share."""

import pytest

from tests.support.frames import write_run


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A folder of entries with a small ensemble, `ethanol-emt`."""
    from schnet_ase.training import crossval, load_config

    folder = tmp_path_factory.mktemp("cli")
    crossval(load_config(write_run(folder)), folder / "run", folder / "models", workers=1)
    return folder / "models"


@pytest.fixture
def here(tmp_path, monkeypatch, models):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCHNET_ASE_MODELS", str(models))
    return tmp_path
