"""The index of a folder of entries: their names, addresses and hashes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from schnet_ase.errors import RegistryError
from schnet_ase.output.files import atomic_write, sha256
from schnet_ase.registry.card import CARD_FILE, read_card

INDEX_FILE = "index.json"


@dataclass(frozen=True)
class Listing:
    """One entry of an index."""

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    elements: tuple[str, ...]
    """Chemical symbols."""
    description: str
    size: Annotated[int, Field(ge=0)]
    """Total size of the files, bytes."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """SHA-256 of ``card.json``, which holds those of the other files."""
    address: str | None = None
    """Folder, or https address, of the entry's files; None if none is known."""


_ADAPTER = TypeAdapter(tuple[Listing, ...])


def read_index(folder: Path) -> tuple[Listing, ...]:
    """Read the index in `folder`; the result is empty if there is no index.

    Raises
    ------
    RegistryError
        The index is not valid.
    """
    file = folder / INDEX_FILE
    try:
        return _ADAPTER.validate_json(file.read_bytes())
    except FileNotFoundError:
        return ()
    except ValidationError as error:
        mistake = error.errors()[0]
        where = ".".join(str(part) for part in mistake["loc"]) or "index"
        raise RegistryError(
            f"{file}: not a valid index ({where}: {mistake['msg']}); make it with schnet-ase models index"
        ) from error


def write_index(folder: Path, address: str | None = None) -> tuple[Listing, ...]:
    """Write the index of the entries in `folder`, atomically, with one line per entry so that changes merge.

    Parameters
    ----------
    folder
        Folder of entries.
    address
        Where a copy of `folder` is available: each entry at ``address/NAME``. None keeps the addresses in the index.

    Raises
    ------
    RegistryError
        There is no entry in `folder`, or a card or the index is not valid.
    """
    known = {listing.name: listing.address for listing in read_index(folder)}
    cards = [read_card(path) for path in entries_in(folder)]
    if not cards:
        raise RegistryError(f"{folder}: no entries; expected a folder of folders with a {CARD_FILE} each")
    listings = tuple(
        Listing(
            card.name,
            card.elements,
            card.data.description,
            sum((card.path / file).stat().st_size for file in card.files),
            sha256(card.path / CARD_FILE),
            known.get(card.name) if address is None else f"{address.rstrip('/')}/{card.name}",
        )
        for card in cards
    )
    lines = [TypeAdapter(Listing).dump_json(listing).decode() for listing in listings]
    atomic_write(folder / INDEX_FILE, "[\n" + ",\n".join(lines) + "\n]\n")
    return listings


def entries_in(folder: Path) -> list[Path]:
    """Return the folders with a card in `folder`, sorted; hidden ones are left out, because they are still being
    written."""
    return sorted(card.parent for card in folder.glob(f"*/{CARD_FILE}") if not card.parent.name.startswith("."))
