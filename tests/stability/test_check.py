"""What a check writes on the card of an entry, and what is said of an entry that it marks."""

import errno
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule

from schnet_ase.errors import RegistryError, SchNetError
from schnet_ase.registry.card import Structure, read_card, write_card
from schnet_ase.registry.dynamics import Dynamics, OtherRun
from schnet_ase.registry.index import write_index
from schnet_ase.stability import check as module
from schnet_ase.stability.check import check_entry
from schnet_ase.stability.times import MemberTimes
from tests.support.entries import errors, make_entry


@pytest.fixture
def quick(monkeypatch):
    """Times that are not measured."""
    monkeypatch.setattr(module, "member_times", lambda card: MemberTimes((0.5,) * len(card.members), 0.25))


@pytest.fixture
def entry(small, tmp_path, monkeypatch, quick):
    """A copy of the small ensemble, of which this is where we are."""
    monkeypatch.chdir(tmp_path)
    return read_card(shutil.copytree(small.path, tmp_path / "copy"))


def check(run, *arguments):
    status, out, err = run("models", "check", *map(str, arguments))
    assert status == 0, err
    return out


def test_the_card_says_what_the_run_was(entry, run, tmp_path):
    """And the rest of the entry is as before."""
    out = check(run, entry.path, "--picoseconds", 0.2, "--temperature", 300)
    new = read_card(entry.path)
    assert replace(new, dynamics=None) == entry
    found = new.dynamics
    assert (found.temperature, found.picoseconds, found.stable, found.others) == (300.0, 0.2, 0.2, ())
    assert found.threshold == entry.calibration.threshold()
    assert found.milliseconds == (0.5,) * len(entry.members)
    assert found.command.endswith(f"models check {entry.path} --picoseconds 0.2 --temperature 300")
    lines = out.splitlines()
    assert lines[0].startswith("copy: intact for 0.2 ps at ")
    assert lines[1:3] == found.lines()
    assert lines[3:] == [f"wrote {entry.path / 'card.json'}", "copy: no bond broke in 0.2 ps at 300 K"]
    (file,) = (tmp_path / "runs" / "copy-check").iterdir()
    with np.load(file) as arrays:
        first = np.flatnonzero(arrays["deviation"] > found.threshold)
    assert found.flagged == (first[0] * 0.5e-3 if len(first) else None)


def test_seeds_and_other_molecules_are_further_runs(entry, run):
    check(run, entry.path, "--picoseconds", 0.05, "--seeds", 2)
    one = read_card(entry.path).dynamics
    assert [(o.structure, o.seed) for o in one.others] == [(None, 1)]
    options = ("--picoseconds", 0.05, "--molecule", "rmd17-malonaldehyde")
    out = check(run, entry.path, *options)
    both = read_card(entry.path).dynamics
    assert both.others[0] == one.others[0]
    other = both.others[1]
    assert (other.structure, other.seed) == ("rmd17-malonaldehyde", 0)
    assert f"the same from rmd17-malonaldehyde: {both.outcome(other.stable, other.flagged)}" in out
    assert replace(both, others=()) == replace(one, others=())
    longer = check(run, entry.path, "--picoseconds", 0.06, "--molecule", "rmd17-malonaldehyde")
    assert longer.startswith("copy: ")  # its own is made too, since the card has none so long
    assert read_card(entry.path).dynamics.picoseconds == 0.06


@pytest.fixture
def broken(tmp_path, monkeypatch, quick):
    """An entry of a single network that holds nothing together."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCHNET_ASE_MODELS", str(tmp_path))
    return make_entry(tmp_path, "loose", (errors(0.1),))


def test_an_entry_whose_bonds_break_is_marked(broken, run):
    out = check(run, "loose", "--temperature", 5000, "--picoseconds", 5)
    card = read_card(broken.path)
    found = card.dynamics
    assert 0.0 < found.stable < 5.0
    assert (found.threshold, found.flagged) == (None, None)
    reason = f"at 5000 K a bond broke after {found.stable:.3f} ps"
    assert card.experimental == found.broken() == reason
    assert "the bond " in out.splitlines()[0]
    assert out.splitlines()[-1] == f"loose is experimental: {reason}"
    assert "a bond broke after" in out.splitlines()[1]
    assert "; not watched, without a calibration" in out.splitlines()[1]
    assert f"experimental: {reason}" in run("models")[1]
    assert f"  experimental     {reason}" in run("models", "show", "loose")[1]
    assert f"loose is experimental: {reason}" in run("md", "loose", "--steps", 1, "--thermostat")[2]
    # A check that is gentler says nothing against it.
    check(run, "loose", "--temperature", 1, "--picoseconds", 0.01)
    card = read_card(broken.path)
    assert card.dynamics.broken() is None
    assert card.experimental == reason


def test_in_which_runs_a_bond_broke():
    whole = Dynamics(500.0, 100.0, 100.0, 0.1, None, (1.0,), "none", "a command")
    assert whole.broken() is None
    others = (
        OtherRun("a", 100.0, None),
        OtherRun("b", 13.4284, 2.0),
        OtherRun(None, 7.0, None, 2),
        OtherRun("b", 1.0, 0.5, 1),
    )
    assert replace(whole, others=others).broken() == (
        "at 500 K a bond broke after 13.428 ps (b) and 7.000 ps (seed 2) and 1.000 ps (b, seed 1)"
    )
    assert replace(whole, stable=24.76).broken() == "at 500 K a bond broke after 24.760 ps"


def test_old_cards_have_no_mark(broken):
    file = broken.path / "card.json"
    text = file.read_text()
    assert '"experimental": null' in text
    file.write_text(text.replace(',\n  "experimental": null', ""))
    assert read_card(broken.path).experimental is None


def test_the_index_beside_an_entry_is_out_of_date(broken, run):
    write_index(broken.path.parent)
    out = check(run, "loose", "--temperature", 1, "--picoseconds", 0.01)
    renew = f"schnet-ase models index {broken.path.parent}"
    assert f"index.json has the hash of the old card; update it with: {renew}" in out


def test_a_folder_that_cannot_be_written(broken, run, monkeypatch):
    """A superuser may write anywhere, so that the refusal is simulated."""

    def refuse(card, folder):
        if folder == broken.path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        write_card(card, folder)

    monkeypatch.setattr(module, "write_card", refuse)
    out = check(run, "loose", "--temperature", 1, "--picoseconds", 0.01, "--output", "kept")
    assert "wrote kept/card.json" in out
    assert f"{broken.path} cannot be written (Permission denied); copy this file there to keep the result" in out
    assert read_card(broken.path).dynamics is None
    assert read_card(broken.path.parent / "kept").dynamics.stable == 0.01


def test_times_alone(broken, run):
    measured = Dynamics(500.0, 100.0, 100.0, 0.1, None, (1.0,), "none", "a command")
    write_card(replace(broken, dynamics=measured), broken.path)
    run("models", "check", "loose", "--times")
    new = read_card(broken.path).dynamics
    assert replace(new, milliseconds=(1.0,), yardstick=None, processor="none") == measured
    assert (new.milliseconds, new.yardstick) == ((0.5,), 0.25)


def test_what_cannot_be_checked(broken, mistake, tmp_path):
    for arguments, message in (
        (("nothing",), "no model 'nothing'"),
        ((tmp_path,), "has no card.json; expected an entry"),
        (("loose", "--times"), "its card has no run of dynamics"),
        (("qm9-u0",), "qm9-u0 was not trained on forces"),
        (("loose", "--picoseconds", "nan"), "nan"),
    ):
        assert message in mistake("models", "check", *map(str, arguments))
    structure = Structure.from_atoms(molecule("H"))
    write_card(replace(broken, structure=structure), broken.path)
    with pytest.raises(SchNetError, match="loose: its structure has no bonds"):
        check_entry("loose", command="")


def test_an_entry_that_changes_meanwhile_is_not_written(broken, monkeypatch):
    def replaced(card):
        write_card(replace(card, members=(replace(card.members[0], sha256="0"),)), card.path)
        return MemberTimes((0.5,), 0.25)

    monkeypatch.setattr(module, "member_times", replaced)
    with pytest.raises(RegistryError, match="the entry was changed while it was checked"):
        check_entry("loose", command="", temperature=1.0, picoseconds=0.01)
