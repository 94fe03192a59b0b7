"""Runs that end before their first training."""

import pytest

from tests.support.learning import Untrained


@pytest.fixture
def untrained(monkeypatch):
    """Runs end where all first frames are labelled."""

    def end(*arguments):
        raise Untrained

    monkeypatch.setattr("schnet_ase.learn.loop.train_generation", end)
