"""What is installed, and what it should be."""

from __future__ import annotations

from pathlib import Path

from schnet_ase import list_models
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import CARD_FILE, Card
from schnet_ase.registry.install import PARTIAL
from schnet_ase.registry.lookup import user_models


def hash_of(card: Card) -> str:
    return sha256(card.path / CARD_FILE)


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def size(card: Card) -> int:
    return sum(len(data) for data in content(card.path).values())


def is_installed(card: Card) -> bool:
    """Whether the user has all files of `card`, and nothing half done beside them."""
    folder = user_models() / card.name
    return content(folder) == content(card.path) and not (user_models() / PARTIAL / card.name).exists()


def nothing_installed() -> bool:
    return list_models() == [] and [p.name for p in user_models().glob("*")] in ([], [PARTIAL])
