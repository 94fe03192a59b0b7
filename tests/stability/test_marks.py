"""Which shipped entries are experimental, on their cards and in the documents."""

import pytest

from schnet_ase.registry.lookup import get_card
from tests.support.paths import ROOT

ENTRIES = sorted(path.parent.name for path in (ROOT / "models").glob("*/card.json"))

OFF_TARGET = ("organic",)
"""Entries that are experimental for their errors."""


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_whose_bonds_broke_is_marked_everywhere(name):
    card = get_card(name)
    reason = None if card.dynamics is None else card.dynamics.broken()
    if reason is None and name in OFF_TARGET:
        reason = f"{1000.0 * card.metrics.test.force_mae:.0f} meV/Å"
        assert reason in card.experimental
    else:
        assert card.experimental == reason
    for document in ("README.md", "docs/entries.md"):
        (line,) = (line for line in (ROOT / document).read_text().splitlines() if line.startswith(f"| `{name}` |"))
        assert ("; *experimental* |" in line) == (reason is not None)
