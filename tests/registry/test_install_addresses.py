"""Addresses, redirections and cards that are not to be trusted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from schnet_ase.errors import DownloadError, RegistryError
from schnet_ase.registry.card import CARD_FILE, Card
from schnet_ase.registry.install import install_entry
from tests.support.entries import one_line
from tests.support.installs import hash_of, is_installed, nothing_installed, size
from tests.support.server import Server, serve

pytestmark = pytest.mark.usefixtures("places")


def test_server_that_does_not_speak_tls(server: Server) -> None:
    with pytest.raises(DownloadError, match="SSL") as caught:
        install_entry("ethanol", server.address.replace("http:", "https:"), sha256="0" * 64)
    one_line(caught)


def test_port_that_is_none() -> None:
    with pytest.raises(DownloadError, match="port") as caught:
        install_entry("ethanol", "https://localhost:port/zoo", sha256="0" * 64)
    one_line(caught)


def test_redirections_are_followed_to_safe_addresses(server: Server, zoo: Card) -> None:
    with serve(zoo.path.parent) as other:
        other.redirect = "http://example.org"
        with pytest.raises(RegistryError, match="example.org.* expected") as caught:
            install_entry("ethanol", f"{other.address}/ethanol", sha256=hash_of(zoo))
        one_line(caught)
        other.redirect = server.address
        server.break_after = 1000
        with pytest.raises(DownloadError, match="broke off"):
            install_entry("ethanol", f"{other.address}/ethanol", sha256=hash_of(zoo))
        server.break_after = None
        install_entry("ethanol", f"{other.address}/ethanol", sha256=hash_of(zoo))
    assert is_installed(zoo)
    assert server.total() == size(zoo)


@pytest.mark.parametrize("file", ["../../evil.safetensors", "/evil.safetensors", ".evil.safetensors", "evil.py"])
def test_card_that_names_files_elsewhere(zoo: Card, tmp_path: Path, file: str) -> None:
    card = json.loads((zoo.path / CARD_FILE).read_text())
    card["members"][0]["file"] = file
    (zoo.path / CARD_FILE).write_text(json.dumps(card))
    shutil.copy(zoo.path / "fold-0.safetensors", tmp_path / "evil.safetensors")
    with pytest.raises(RegistryError, match="members.0.file") as caught:
        install_entry("ethanol", zoo.path)
    one_line(caught)
    assert nothing_installed()
