"""A student in a registry entry: by which names it is found, and what listing, installing and the index make of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator, list_models, load_model
from schnet_ase.cli import cli
from schnet_ase.errors import RegistryError
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import CARD_FILE, Card, Student, read_card, write_card
from schnet_ase.registry.index import write_index
from schnet_ase.registry.install import install_entry
from schnet_ase.registry.loading import locate, locate_members
from schnet_ase.registry.lookup import owning_card
from tests.support.entries import errors, make_entry, one_line, save_member


def scale(model) -> float:
    return float(model.scale)


def add_student(card: Card) -> Card:
    """A student of scale 50 for an entry; its errors are 0.03 eV/Å where the mean's are 0.02."""
    file = card.path / "student.safetensors"
    save_member(file, 50.0)
    student = Student(sha256(file), errors(0.01), errors(0.03), "10 frames", 1.0, "schnet-ase distill ethanol")
    metrics = replace(card.metrics, test=errors(0.02))
    write_card(replace(card, student=student, metrics=metrics), card.path)
    return read_card(card.path)


@pytest.fixture
def entry(tmp_path, monkeypatch):
    monkeypatch.setenv("SCHNET_ASE_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr("schnet_ase.registry.lookup.user_models", lambda: tmp_path / "user")
    monkeypatch.setattr("schnet_ase.registry.install.user_models", lambda: tmp_path / "user")
    monkeypatch.setattr("schnet_ase.registry.lookup.SHIPPED", tmp_path / "shipped")
    return add_student(make_entry(tmp_path / "models"))


def test_the_entrys_name_stands_for_its_student(entry):
    for name in ("ethanol", "ethanol/student", entry.path, entry.path / "student.safetensors"):
        assert scale(load_model(name)) == 50.0
    assert scale(load_model("ethanol/fold-2")) == 3.0
    assert scale(locate("ethanol", student=False).model) == 2.0, "the member with the smallest error"
    calculator = SchNetCalculator("ethanol")
    assert calculator.todict()["model"] == "ethanol"


def test_the_ensemble_is_of_members_alone(entry):
    assert [found.path.stem for found in locate_members("ethanol")] == ["fold-0", "fold-1", "fold-2"]
    atoms = entry.structure.atoms()
    atoms.calc = SchNetEnsembleCalculator("ethanol")
    atoms.get_potential_energy()
    assert len(atoms.calc.results["energy_ensemble"]) == 3
    (entry.path / CARD_FILE).unlink()
    assert len(locate_members(entry.path)) == 3, "a folder of checkpoints without a card"


def test_an_entry_without_a_student_is_as_before(entry):
    card = json.loads((entry.path / CARD_FILE).read_text())
    del card["student"]  # as cards were before there were students
    (entry.path / CARD_FILE).write_text(json.dumps(card))
    assert read_card(entry.path).student is None
    assert scale(load_model("ethanol")) == 2.0
    with pytest.raises(RegistryError, match="no model ethanol/student; expected one of ethanol/fold-0") as caught:
        load_model("ethanol/student")
    assert "schnet-ase distill" in one_line(caught)


def test_a_changed_student_is_an_error(entry):
    save_member(entry.path / "student.safetensors", 51.0)
    with pytest.raises(RegistryError, match=r"student.safetensors: SHA-256 is not the one in") as caught:
        load_model("ethanol")
    one_line(caught)


def test_no_other_name_than_the_students_is_on_a_card(entry):
    card = json.loads((entry.path / CARD_FILE).read_text())
    card["student"]["file"] = "../ethanol/fold-0.safetensors"
    (entry.path / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(RegistryError, match="not a valid card") as caught:
        read_card(entry.path)
    one_line(caught)


def test_owning_card(entry):
    assert owning_card("ethanol/student").name == "ethanol"
    assert owning_card(entry.path / "student.safetensors").name == "ethanol"


def test_listed_and_shown(entry):
    listed = CliRunner().invoke(cli, ["models"])
    assert "ethanol" in listed.output
    assert "3 members, student" in listed.output
    shown = CliRunner().invoke(cli, ["models", "show", "ethanol"]).output.splitlines()
    (against,) = [line.split() for line in shown if "student, against the mean" in line]
    (tested,) = [line.split() for line in shown if "student, test" in line]
    assert against[-2:] == ["10.00", "10.00"]
    assert tested[-2:] == ["30.00", "30.00"]
    assert any("of 10 frames" in line and "1.500 times that of the mean" in line for line in shown)
    assert any(entry.student.sha256 in line and "schnet-ase distill ethanol" in line for line in shown)


def test_index_and_installation_take_it(entry, tmp_path):
    (listing,) = write_index(tmp_path / "models")
    assert listing.size == sum(file.stat().st_size for file in entry.path.iterdir())
    card = install_entry("ethanol", entry.path)
    assert card.path == entry.path, "it is there already"
    (entry.path / "student.safetensors").rename(tmp_path / "student.safetensors")
    source = tmp_path / "source"
    entry.path.rename(source)
    (tmp_path / "models" / "index.json").unlink()
    with pytest.raises(ValueError, match=r"student\.safetensors: no such file") as caught:
        install_entry("ethanol", source)
    one_line(caught)
    assert list_models() == []
    (tmp_path / "student.safetensors").rename(source / "student.safetensors")
    installed = install_entry("ethanol", source)
    assert (installed.path / "student.safetensors").is_file()
    assert scale(load_model("ethanol")) == 50.0
