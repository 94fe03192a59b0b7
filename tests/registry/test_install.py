"""Entries from elsewhere: whole, verified and resumed, or one line and nothing changed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from schnet_ase import list_models, load_model
from schnet_ase.cli import main
from schnet_ase.errors import DownloadError, RegistryError
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import CARD_FILE, Card
from schnet_ase.registry.index import write_index
from schnet_ase.registry.install import PARTIAL, install_entry
from schnet_ase.registry.lookup import get_card, user_models
from tests.support.entries import make_entry, one_line, save_member
from tests.support.paths import ROOT
from tests.support.server import Server, serve

pytestmark = pytest.mark.usefixtures("places")


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
            DownloadError, match=r"broke off after \d+ of \d+ bytes; the same command goes on"
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


KILLED_AT_EVERY_STEP = """
import os, shutil, signal, sys
from pathlib import Path
from schnet_ase.registry.install import install_entry
from schnet_ase.registry.lookup import list_models, user_models

source = Path(sys.argv[1])
expected = {file.name: file.read_bytes() for file in source.iterdir()}
events = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")

def child(step):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event in events:
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1
    pid = os.fork()
    if pid == 0:
        if step is not None:
            sys.addaudithook(hook)
        install_entry("ethanol", source)
        os._exit(0)
    return os.waitpid(pid, 0)[1]

def state():
    folder = user_models() / "ethanol"
    if not folder.exists():
        assert list_models() == []
        return "nothing"
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == expected
    return "all"

states = []
while True:
    shutil.rmtree(user_models(), ignore_errors=True)
    status = child(len(states))
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    states.append(state())
    assert child(None) == 0, "an install after the kill"
    assert state() == "all"
print(*states)
"""


def script(code: str, tmp_path: Path, *arguments: object) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "SCHNET_ASE_MODELS": "",
        "no_proxy": "*",
    }
    # The code is run where the shipped entries are not those of the tests: only `ethanol` counts.
    code = "from pathlib import Path; from schnet_ase.registry import lookup; lookup.SHIPPED = Path('nowhere')\n" + code
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], env=environment, text=True, stdout=subprocess.PIPE
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of itself")
def test_killed_before_any_step_leaves_all_or_nothing(zoo: Card, tmp_path: Path) -> None:
    process = script(KILLED_AT_EVERY_STEP, tmp_path, zoo.path)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    states = out.split()
    assert states == sorted(states, reverse=True), "once there, it stays"
    assert states.count("nothing") > 4 * len(zoo.files)  # each file: read, written, hashed, renamed
    assert "all" in states


def test_killed_in_the_middle_of_a_file_goes_on_there(server: Server, zoo: Card, tmp_path: Path) -> None:
    server.break_after, server.stall = 1000, True
    code = "import sys; from schnet_ase.registry.install import install_entry; install_entry('ethanol', *sys.argv[1:2],"
    process = script(f"{code} sha256=sys.argv[2])", tmp_path, f"{server.address}/ethanol", hash_of(zoo))
    assert server.stalled.wait(120)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert nothing_installed()
    server.break_after = None
    install_entry("ethanol", f"{server.address}/ethanol", sha256=hash_of(zoo))
    assert is_installed(zoo)
    # What the killed process had received and not yet written came again, and no more.
    assert size(zoo) <= server.total() <= size(zoo) + 1000


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


def test_progress_bar_on_a_terminal(
    server: Server, zoo: Card, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    install_entry("ethanol", f"{server.address}/ethanol", sha256=hash_of(zoo))
    out, err = capsys.readouterr()
    assert out == ""
    for file in zoo.files:
        kilobytes = f"{(zoo.path / file).stat().st_size / 1000:.2f}k"
        assert any(
            line.startswith(f"ethanol/{file}: 100%") and f"{kilobytes}/{kilobytes}" in line
            for line in err.replace("\r", "\n").splitlines()
        ), err


def test_lines_where_there_is_no_terminal(
    server: Server, zoo: Card, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("schnet_ase.output.progress.SECONDS_BETWEEN_LINES", 0.0)
    install_entry("ethanol", f"{server.address}/ethanol", sha256=hash_of(zoo))
    out, err = capsys.readouterr()
    assert out == ""
    total = (zoo.path / CARD_FILE).stat().st_size / 1000
    assert f"ethanol/{CARD_FILE}: {total:.2f}kB/{total:.2f}kB, " in err


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["schnet-ase", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(str(caught.value.code))


def test_command_line(
    server: Server,
    zoo: Card,
    places: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_entry(zoo.path.parent, "water")
    assert run(monkeypatch, "models", "index", zoo.path.parent) == 0
    assert "ethanol, water" in capsys.readouterr().out
    places["shipped"].mkdir()
    shutil.copy(zoo.path.parent / "index.json", places["shipped"])
    assert run(monkeypatch, "models") == 0
    out = capsys.readouterr().out
    assert "not installed: schnet-ase models get water --from FOLDER\n" in out
    assert "FOLDER: models/NAME in the source repository" in out

    assert run(monkeypatch, "models", "get", "ethanol") == 2
    err = capsys.readouterr().err
    assert err.startswith("schnet-ase: ethanol: no address of it is known; give --from")
    assert err.count("\n") == 1
    assert run(monkeypatch, "models", "get", "ethanol", "--from", zoo.path) == 0
    assert f"3 members in {user_models() / 'ethanol'}" in capsys.readouterr().out
    assert is_installed(zoo)

    assert run(monkeypatch, "models", "index", zoo.path.parent, "--address", server.address) == 0
    shutil.copy(zoo.path.parent / "index.json", places["shipped"])
    capsys.readouterr()
    assert run(monkeypatch, "models") == 0
    out = capsys.readouterr().out
    assert "ethanol                  3 members" in out
    assert out.endswith("not installed: schnet-ase models get water\n")
    server.break_after = 1000
    assert run(monkeypatch, "models", "get", "water") == 2
    err = capsys.readouterr().err
    assert "broke off after 1000" in err
    assert err.count("\n") == 1
    server.break_after = None
    assert run(monkeypatch, "models", "get", "water") == 0
    capsys.readouterr()
    assert run(monkeypatch, "models") == 0
    assert "not installed" not in capsys.readouterr().out


def test_refused_on_the_command_line(
    zoo: Card, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (
        ("water",),
        ("ethanol", "--from", "https://example.org/zoo"),
        ("ethanol", "--from", "http://example.org/zoo", "--sha256", "0" * 64),
        ("ethanol", "--from", zoo.path, "--sha256", "0" * 64),
        ("ethanol", "--from", zoo.path / "nowhere"),
    ):
        assert run(monkeypatch, "models", "get", *arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("schnet-ase: ")
        assert err.count("\n") == 1
    assert nothing_installed()
