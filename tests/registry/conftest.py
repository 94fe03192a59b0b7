"""An entry and its server, and a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from schnet_ase import save_model
from schnet_ase.registry.card import Card
from tests.support.checkpoints import PROVENANCE, make_model
from tests.support.entries import make_entry
from tests.support.server import Server, serve


@pytest.fixture
def zoo(tmp_path: Path) -> Card:
    """An entry ``ethanol`` in a folder that is not looked into."""
    return make_entry(tmp_path / "zoo")


@pytest.fixture
def server(zoo: Card, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of the zoo."""
    monkeypatch.setenv("no_proxy", "*")
    with serve(zoo.path.parent) as running:
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A checkpoint of `make_model`."""
    path = tmp_path / "model.safetensors"
    save_model(make_model(), path, **PROVENANCE)
    return path
