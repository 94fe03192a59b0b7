"""The entry that most tests look at."""

import pytest

from schnet_ase.registry.lookup import get_card


@pytest.fixture(scope="module")
def card():
    return get_card("rmd17-ethanol")
