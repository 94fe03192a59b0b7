"""A calibrated ensemble that has learned little, which dynamics is run with."""

import pytest

from schnet_ase.training import crossval, load_config
from tests.support.frames import write_run


@pytest.fixture(scope="package")
def small(tmp_path_factory):
    """The card of the entry."""
    folder = tmp_path_factory.mktemp("small")
    return crossval(load_config(write_run(folder)), folder / "run", folder / "models", workers=1)
