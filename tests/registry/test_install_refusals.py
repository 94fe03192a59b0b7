"""What cannot be installed is refused in one line, and nothing has changed."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from schnet_ase.errors import DownloadError, RegistryError
from schnet_ase.registry.card import CARD_FILE, Card
from schnet_ase.registry.index import write_index
from schnet_ase.registry.install import install_entry
from tests.support.entries import one_line
from tests.support.installs import nothing_installed
from tests.support.server import Server

pytestmark = pytest.mark.usefixtures("places")


@pytest.mark.parametrize("name", ["../ethanol", "", ".", "..", ".hidden", "a/b", "a b"])
def test_name_that_is_none(zoo: Card, name: str) -> None:
    with pytest.raises(RegistryError, match="no name of an entry") as caught:
        install_entry(name, zoo.path)
    one_line(caught)
    assert nothing_installed()


@pytest.mark.parametrize("value", ["", "00", "g" * 64, "0" * 65])
def test_hash_that_is_none(zoo: Card, value: str) -> None:
    with pytest.raises(RegistryError, match="64 hexadecimal digits") as caught:
        install_entry("ethanol", zoo.path, sha256=value)
    one_line(caught)


def test_unknown_without_source(places: dict[str, Path]) -> None:
    with pytest.raises(RegistryError, match="in no index; give --from") as caught:
        install_entry("ethanol")
    one_line(caught)


def test_listed_without_address(zoo: Card, places: dict[str, Path]) -> None:
    write_index(zoo.path.parent)
    places["shipped"].mkdir()
    shutil.copy(zoo.path.parent / "index.json", places["shipped"])
    with pytest.raises(RegistryError, match=r"no address .* give --from .*models/ethanol") as caught:
        install_entry("ethanol")
    one_line(caught)


def test_address_without_hash(server: Server) -> None:
    with pytest.raises(RegistryError, match="give the --sha256") as caught:
        install_entry("ethanol", f"{server.address}/ethanol")
    one_line(caught)
    assert server.asked == []


@pytest.mark.parametrize(
    "address",
    [
        "http://example.org/zoo",
        "http://localhost.example.org/zoo",
        "http://localhost@example.org/zoo",
        "ftp://localhost/zoo",
        "file:///zoo",
        "https://",
        "https:///zoo",
        "https://[::1/zoo",
        "https://example.org/a b",
        "https://example.org/ä",
        "https://example.org/\nzoo",
    ],
)
def test_address_of_another_kind(address: str) -> None:
    with pytest.raises(RegistryError, match="expected a folder or an https address") as caught:
        install_entry("ethanol", address, sha256="0" * 64)
    one_line(caught)
    assert nothing_installed()


@pytest.mark.parametrize("sha", [None, "0" * 64])
def test_folder_without_a_card(tmp_path: Path, sha: str | None) -> None:
    with pytest.raises(RegistryError, match=r"no card\.json .* models/ethanol") as caught:
        install_entry("ethanol", tmp_path, sha256=sha)
    assert str(tmp_path) in one_line(caught)


def test_no_such_address(server: Server) -> None:
    with pytest.raises(DownloadError, match="404") as caught:
        install_entry("ethanol", f"{server.address}/nowhere", sha256="0" * 64)
    assert f"{server.address}/nowhere/{CARD_FILE}" in one_line(caught)
    assert nothing_installed()


def test_member_missing_in_the_folder(zoo: Card) -> None:
    (zoo.path / "fold-2.safetensors").unlink()
    with pytest.raises(DownloadError, match="no such file") as caught:
        install_entry("ethanol", zoo.path)
    assert "fold-2.safetensors" in one_line(caught)
    assert nothing_installed()


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(DownloadError, match="cannot be fetched") as caught:
        install_entry("ethanol", f"https://127.0.0.1:{port}/zoo", sha256="0" * 64)
    one_line(caught)


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*arguments: object, **more: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(DownloadError, match="name resolution.*check network") as caught:
        install_entry("ethanol", "https://example.org/zoo", sha256="0" * 64)
    one_line(caught)
