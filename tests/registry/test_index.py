"""Indexes: what they say of the entries, which entries count as not installed, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schnet_ase.errors import RegistryError
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import CARD_FILE
from schnet_ase.registry.index import INDEX_FILE, read_index, write_index
from schnet_ase.registry.loading import load_model
from schnet_ase.registry.lookup import entry_folders, listings
from tests.support.entries import make_entry, one_line
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures("places")


def test_round_trip(tmp_path: Path) -> None:
    cards = [make_entry(tmp_path / "zoo", name) for name in ("water", "ethanol")]
    written = write_index(tmp_path / "zoo")
    assert read_index(tmp_path / "zoo") == written
    assert [x.name for x in written] == ["ethanol", "water"]
    for listing, card in zip(written, reversed(cards), strict=True):
        assert listing.elements == card.elements
        assert listing.size == sum(file.stat().st_size for file in card.path.iterdir())
        assert listing.sha256 == sha256(card.path / CARD_FILE)
        assert listing.address is None


def test_an_entry_is_a_line(tmp_path: Path) -> None:
    """Two branches that each add an entry change different lines."""
    make_entry(tmp_path, "water")
    write_index(tmp_path)
    (water,) = (line for line in (tmp_path / INDEX_FILE).read_text().splitlines() if "water" in line)
    make_entry(tmp_path, "zinc")
    write_index(tmp_path)
    assert f"{water}," in (tmp_path / INDEX_FILE).read_text().splitlines()


def test_addresses_are_kept_and_follow_what_is_there(tmp_path: Path) -> None:
    make_entry(tmp_path, "water")
    write_index(tmp_path, "https://example.org/zoo/")
    make_entry(tmp_path, "ethanol")
    ethanol, water = write_index(tmp_path)
    assert (ethanol.address, water.address) == (None, "https://example.org/zoo/water")
    (tmp_path / "water" / CARD_FILE).unlink()
    assert write_index(tmp_path) == (ethanol,)


def test_folder_without_index(tmp_path: Path) -> None:
    assert read_index(tmp_path) == ()


def test_folder_without_entries(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="no entries") as caught:
        write_index(tmp_path)
    assert str(tmp_path) in one_line(caught)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "../ethanol"),
        ("name", ".ethanol"),
        ("size", -1),
        ("sha256", "00"),
        ("sha256", "0" * 63 + "\n"),
        ("elements", 5),
        ("address", 5),
    ],
)
def test_line_with_a_wrong_field_names_it(tmp_path: Path, field: str, value: object) -> None:
    make_entry(tmp_path)
    write_index(tmp_path)
    file = tmp_path / INDEX_FILE
    (line,) = json.loads(file.read_text())
    file.write_text(json.dumps([{**line, field: value}]))
    with pytest.raises(RegistryError, match=field) as caught:
        read_index(tmp_path)
    assert str(file) in one_line(caught)


@pytest.mark.parametrize("content", [b"", b"{}", b"[5]", b"\xff"], ids=repr)
def test_invalid_index(tmp_path: Path, content: bytes) -> None:
    (tmp_path / INDEX_FILE).write_bytes(content)
    with pytest.raises(RegistryError, match="not a valid index") as caught:
        read_index(tmp_path)
    one_line(caught)


def test_first_index_of_the_search_path_wins(places: dict[str, Path]) -> None:
    for role in ("second", "shipped"):
        make_entry(places[role])
        write_index(places[role], f"https://example.org/{role}")
    assert listings()["ethanol"].address == "https://example.org/second/ethanol"


def test_a_name_that_is_not_installed_says_how_to_get_it(places: dict[str, Path]) -> None:
    card = make_entry(places["shipped"])
    write_index(places["shipped"])
    card.path.rename(places["shipped"].parent / "elsewhere")
    assert entry_folders() == {}
    for name in ("ethanol", "ethanol/fold-1"):
        with pytest.raises(RegistryError, match="schnet-ase models get ethanol$") as caught:
            load_model(name)
        one_line(caught)
    with pytest.raises(RegistryError, match="did you mean ethanol"):
        load_model("ethanl")


def test_an_installed_entry_is_not_said_to_be_missing(places: dict[str, Path]) -> None:
    make_entry(places["shipped"])
    write_index(places["shipped"])
    with pytest.raises(RegistryError, match="neither a registry entry nor a file"):
        load_model("ethanol/fold-1/2")


def test_hidden_folders_are_no_entries(places: dict[str, Path]) -> None:
    """What a killed cross-validation was building."""
    make_entry(places["user"], ".ethanol.x3f")
    assert entry_folders() == {}


def test_shipped_index_is_that_of_the_shipped_entries(tmp_path: Path) -> None:
    models = ROOT / "models"
    (tmp_path / INDEX_FILE).write_bytes((models / INDEX_FILE).read_bytes())
    for folder in models.iterdir():
        if folder.is_dir():
            (tmp_path / folder.name).symlink_to(folder)
    assert read_index(models) == write_index(tmp_path), "run: schnet-ase models index models"
