"""`schnet-ase models get`: progress, and mistakes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from schnet_ase.cli import main
from schnet_ase.registry.card import CARD_FILE, Card
from schnet_ase.registry.install import install_entry
from schnet_ase.registry.lookup import user_models
from tests.support.entries import make_entry
from tests.support.installs import hash_of, is_installed, nothing_installed
from tests.support.server import Server

pytestmark = pytest.mark.usefixtures("places")


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
