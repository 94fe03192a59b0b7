"""Entries from elsewhere: whole, verified and resumed."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from schnet_ase import list_models, load_model
from schnet_ase.errors import DownloadError, RegistryError
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import CARD_FILE, Card
from schnet_ase.registry.index import write_index
from schnet_ase.registry.install import PARTIAL, install_entry
from schnet_ase.registry.lookup import get_card, user_models
from tests.support.entries import make_entry, one_line, save_member
from tests.support.installs import content, hash_of, is_installed, nothing_installed, size
from tests.support.server import Server

pytestmark = pytest.mark.usefixtures("places")


@pytest.mark.parametrize("as_path", [True, False])
def test_from_a_folder(zoo: Card, as_path: bool) -> None:
    card = install_entry("ethanol", zoo.path if as_path else str(zoo.path))
    assert is_installed(zoo)
    assert card == get_card("ethanol")
    assert card.path == user_models() / "ethanol"
    assert float(load_model("ethanol/fold-2").scale) == 3.0


def test_under_another_name(zoo: Card) -> None:
    assert install_entry("mine", zoo.path).name == "mine"
    assert content(user_models() / "mine") == content(zoo.path)


def test_only_what_is_on_the_card_is_taken(zoo: Card) -> None:
    expected = content(zoo.path)
    (zoo.path / "notes.txt").write_text("not of the entry")
    install_entry("ethanol", zoo.path)
    assert content(user_models() / "ethanol") == expected


@pytest.mark.parametrize("upper", [True, False])
def test_from_an_address(server: Server, zoo: Card, upper: bool) -> None:
    expected = hash_of(zoo)
    install_entry("ethanol", f"{server.address}/ethanol/", sha256=expected.upper() if upper else expected)
    assert is_installed(zoo)
    assert server.total() == size(zoo)


def test_index_gives_address_and_hash(server: Server, zoo: Card, places: dict[str, Path]) -> None:
    write_index(zoo.path.parent, server.address)
    places["shipped"].mkdir()
    shutil.copy(zoo.path.parent / "index.json", places["shipped"])
    install_entry("ethanol")
    assert is_installed(zoo)


def test_index_vouches_for_any_address_and_folder(server: Server, zoo: Card, places: dict[str, Path]) -> None:
    write_index(zoo.path.parent)
    places["shipped"].mkdir()
    shutil.copy(zoo.path.parent / "index.json", places["shipped"])
    other = make_entry(zoo.path.parent / "other")
    for source in (f"{server.address}/other/ethanol", other.path):
        with pytest.raises(RegistryError, match="SHA-256"):
            install_entry("ethanol", source)
    assert nothing_installed()
    install_entry("ethanol", other.path, sha256=hash_of(other))  # the user's word is the last
    assert is_installed(other)
    shutil.rmtree(user_models())
    install_entry("ethanol", f"{server.address}/ethanol")
    assert is_installed(zoo)


def test_every_byte_is_sent_once_however_often_the_connection_breaks(server: Server, zoo: Card) -> None:
    server.break_after = 1000
    source, breaks = f"{server.address}/ethanol", 0
    while sum(max(0, (zoo.path / file).stat().st_size - server.sent.get(file, 0)) for file in zoo.files) > 1000:
        with pytest.raises(
            DownloadError, match=r"broke off after \d+ of \d+ bytes; the same command resumes"
        ) as caught:
            install_entry("ethanol", source, sha256=hash_of(zoo))
        one_line(caught)
        assert nothing_installed()
        breaks += 1
        assert breaks < 50
    install_entry("ethanol", source, sha256=hash_of(zoo))
    assert is_installed(zoo)
    assert breaks > 4
    assert server.sent == {file: (zoo.path / file).stat().st_size for file in zoo.files}


def test_rest_from_another_place(server: Server, zoo: Card) -> None:
    server.break_after = 1000
    with pytest.raises(DownloadError):
        install_entry("ethanol", f"{server.address}/ethanol", sha256=hash_of(zoo))
    moved = zoo.path.parent / "moved"
    shutil.copytree(zoo.path, moved)
    server.break_after = None
    install_entry("ethanol", f"{server.address}/moved", sha256=hash_of(zoo))
    assert server.total() == size(zoo)
    assert is_installed(zoo)


def test_server_without_ranges_starts_the_file_over(server: Server, zoo: Card) -> None:
    server.ranges = False
    server.break_after = 1000
    with pytest.raises(DownloadError):
        install_entry("ethanol", f"{server.address}/ethanol", sha256=hash_of(zoo))
    server.break_after = None
    install_entry("ethanol", f"{server.address}/ethanol", sha256=hash_of(zoo))
    assert is_installed(zoo)
    assert (CARD_FILE, "bytes=1000-") in server.asked
    assert server.total() == 1000 + size(zoo)


def test_server_that_sends_another_range_starts_the_file_over(server: Server, zoo: Card) -> None:
    server.break_after = 1000
    with pytest.raises(DownloadError):
        install_entry("ethanol", f"{server.address}/ethanol", sha256=hash_of(zoo))
    server.break_after, server.shift = None, -7
    install_entry("ethanol", f"{server.address}/ethanol", sha256=hash_of(zoo))
    assert is_installed(zoo)


@pytest.mark.parametrize("longer", [True, False])
def test_file_changed_in_between(server: Server, zoo: Card, longer: bool) -> None:
    """The first 1,000 bytes, or more than there are, came from another file."""
    good = (zoo.path / "fold-0.safetensors").read_bytes()
    (zoo.path / "fold-0.safetensors").write_bytes(b"x" * (2 * len(good)))
    server.break_after = len(good) + 10 if longer else 1000
    for _ in range(20):
        with pytest.raises(DownloadError):
            install_entry("ethanol", f"{server.address}/ethanol", sha256=hash_of(zoo))
        if "fold-0.safetensors" in server.sent:
            break
    (zoo.path / "fold-0.safetensors").write_bytes(good)
    server.break_after = None
    install_entry("ethanol", f"{server.address}/ethanol", sha256=hash_of(zoo))
    assert is_installed(zoo)


def test_server_that_does_not_say_how_much(server: Server, zoo: Card) -> None:
    server.length = False
    install_entry("ethanol", f"{server.address}/ethanol", sha256=hash_of(zoo))
    assert is_installed(zoo)


@pytest.mark.parametrize("file", [CARD_FILE, "fold-1.safetensors"])
@pytest.mark.parametrize("remote", [True, False])
def test_another_file_is_refused_and_forgotten(server: Server, zoo: Card, file: str, remote: bool) -> None:
    expected, good = hash_of(zoo), (zoo.path / file).read_bytes()
    water = install_entry("water", make_entry(zoo.path.parent, "water").path)
    before = content(water.path)
    source = f"{server.address}/ethanol" if remote else zoo.path
    (zoo.path / file).write_bytes(good + b"\n")
    with pytest.raises(RegistryError, match="SHA-256") as caught:
        install_entry("ethanol", source, sha256=expected)
    message = one_line(caught)
    assert f"{source}/{file}" in message
    assert sha256(zoo.path / file) in message
    assert [card.name for card in list_models()] == ["water"]
    assert list(user_models().rglob("*.part")) == []
    assert content(water.path) == before
    (zoo.path / file).write_bytes(good)
    install_entry("ethanol", source, sha256=expected)
    assert is_installed(zoo)


def test_what_is_there_is_not_fetched_again(server: Server, zoo: Card, places: dict[str, Path]) -> None:
    shipped = places["shipped"] / "ethanol"
    shutil.copytree(zoo.path, shipped)
    card = install_entry("ethanol", f"{server.address}/ethanol", sha256=hash_of(zoo))
    assert card.path == shipped
    assert server.asked == []
    assert not (user_models() / "ethanol").exists()


def test_damaged_elsewhere_is_fetched(zoo: Card, places: dict[str, Path]) -> None:
    shutil.copytree(zoo.path, places["shipped"] / "ethanol")
    (places["shipped"] / "ethanol" / "fold-1.safetensors").write_bytes(b"")
    with pytest.raises(RegistryError, match="SHA-256"):
        load_model("ethanol/fold-1")
    install_entry("ethanol", zoo.path)
    assert is_installed(zoo)
    assert float(load_model("ethanol/fold-1").scale) == 2.0


@pytest.mark.parametrize("damage", ["other card", "other member", "no member", "a file"])
def test_the_users_own_entry_is_never_replaced(zoo: Card, damage: str) -> None:
    folder = user_models() / "ethanol"
    if damage == "a file":
        folder.parent.mkdir(parents=True)
        folder.write_text("")
    else:
        install_entry("ethanol", zoo.path)
        if damage == "other card":
            (folder / CARD_FILE).write_bytes((folder / CARD_FILE).read_bytes() + b"\n")
        elif damage == "other member":
            save_member(folder / "fold-1.safetensors", 9.0)
        else:
            (folder / "fold-1.safetensors").unlink()
    before = {**content(user_models()), f"{PARTIAL}/ethanol.lock": b""}
    with pytest.raises(RegistryError, match="move it away") as caught:
        install_entry("ethanol", zoo.path)
    assert str(folder) in one_line(caught)
    assert content(user_models()) == before


def test_one_process_at_a_time(zoo: Card) -> None:
    place = user_models() / PARTIAL
    place.mkdir(parents=True)
    with FileLock(place / "ethanol.lock"), pytest.raises(RegistryError, match="another process") as caught:
        install_entry("ethanol", zoo.path)
    one_line(caught)
    install_entry("ethanol", zoo.path)
    assert is_installed(zoo)


def test_full_disk(zoo: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("schnet_ase.output.transfer.os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            install_entry("ethanol", zoo.path)
    assert nothing_installed()
    install_entry("ethanol", zoo.path)
    assert is_installed(zoo)
