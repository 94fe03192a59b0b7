"""The registry: where entries are found, which member a name means, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk, molecule

from schnet_ase import SchNet, list_models, load_model
from schnet_ase.errors import CheckpointError, RegistryError
from schnet_ase.registry import lookup as registry
from schnet_ase.registry.card import CARD_FILE, Card, Structure, read_card, write_card
from schnet_ase.registry.checkpoint import read_provenance
from schnet_ase.registry.loading import locate, locate_members
from schnet_ase.registry.lookup import find_card, get_card, lasting_name
from schnet_ase.uncertainty.metrics import Errors
from tests.support.entries import errors, make_entry, one_line, save_member

pytestmark = pytest.mark.usefixtures("places")


@pytest.fixture
def entry(places: dict[str, Path]) -> Card:
    """An entry ``ethanol`` of three members; the second is the best."""
    return make_entry(places["shipped"])


def edit_card(card: Card, **fields: object) -> None:
    file = card.path / CARD_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def scale(model: SchNet) -> float:
    return float(model.scale)


def test_search_order(places: dict[str, Path]) -> None:
    roles = ["first", "second", "user", "shipped"]
    for role in roles:
        make_entry(places[role])
    for role in roles:
        assert get_card("ethanol").path == places[role] / "ethanol"
        assert [card.path for card in list_models()] == [places[role] / "ethanol"]
        assert locate("ethanol").path.parent == places[role] / "ethanol"
        shutil.rmtree(places[role])
    assert list_models() == []


def test_search_variable_unset_or_empty(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    make_entry(Path.cwd())  # An empty name in the variable must not stand for the working folder.
    for value in ("", os.pathsep):
        monkeypatch.setenv(registry.SEARCH_VARIABLE, value)
        assert list_models() == []
    monkeypatch.delenv(registry.SEARCH_VARIABLE)
    make_entry(places["user"], "water")
    assert [card.name for card in list_models()] == ["water"]


def test_name_is_the_best_member_by_validation(entry: Card) -> None:
    assert scale(load_model("ethanol")) == 2.0
    assert locate("ethanol").path == entry.path / "fold-1.safetensors"


@pytest.mark.parametrize(
    ("validation", "best"),
    [
        ((errors(0.2, 0.1), errors(0.1, 0.9), errors(0.3, 0.2)), 1),  # forces count before energies
        ((errors(0.1, 0.3), errors(0.1, 0.2), errors(0.2, 0.1)), 1),  # energies where forces are equal
        ((errors(None, 0.3), errors(None, 0.2), errors(None, 0.1)), 2),  # energies where there are no forces
        ((errors(0.2, None), errors(0.3, None), errors(0.4, None)), 0),
    ],
)
def test_best_member(places: dict[str, Path], validation: tuple[Errors, ...], best: int) -> None:
    card = make_entry(places["user"], "other", validation)
    assert card.best.file == f"fold-{best}.safetensors"
    assert scale(load_model("other")) == best + 1.0


@pytest.mark.parametrize("k", [0, 1, 2])
def test_member_by_name(entry: Card, k: int) -> None:
    model = load_model(f"ethanol/fold-{k}")
    assert scale(model) == k + 1.0
    assert model.elements == (1, 6, 8)


def test_member_by_file(entry: Card) -> None:
    file = entry.path / "fold-2.safetensors"
    assert scale(load_model(file)) == 3.0
    assert scale(load_model(str(file))) == 3.0
    assert locate(str(file)).path == file
    assert scale(load_model(os.path.relpath(file))) == 3.0


@pytest.mark.parametrize("as_path", [True, False])
def test_file_of_any_name(tmp_path: Path, as_path: bool) -> None:
    file = tmp_path / "model.bin"
    save_member(file, 7.0)
    assert scale(load_model(file if as_path else str(file))) == 7.0


@pytest.mark.parametrize("as_path", [True, False])
def test_missing_file(tmp_path: Path, as_path: bool) -> None:
    file = tmp_path / "absent.safetensors"
    with pytest.raises(CheckpointError, match="no such file") as caught:
        load_model(file if as_path else str(file))
    assert str(file) in one_line(caught)


@pytest.mark.parametrize("wrong", ["ethanl", "ethanole", "Ethanol"])
def test_unknown_name_lists_near_names(entry: Card, places: dict[str, Path], wrong: str) -> None:
    make_entry(places["user"], "water")
    with pytest.raises(RegistryError) as caught:
        load_model(wrong)
    message = one_line(caught)
    assert repr(wrong) in message
    assert "did you mean ethanol?" in message


def test_unknown_name_near_to_none_lists_all(entry: Card, places: dict[str, Path]) -> None:
    make_entry(places["user"], "water")
    with pytest.raises(RegistryError) as caught:
        locate_members("zzz")
    message = one_line(caught)
    assert "ethanol" in message
    assert "water" in message


def test_names_come_before_folders_of_that_name(entry: Card) -> None:
    """A folder where `crossval` trains has the names of members in it."""
    (Path.cwd() / "ethanol" / "fold-2").mkdir(parents=True)
    assert [found.path for found in locate_members("ethanol/fold-2")] == [entry.path / "fold-2.safetensors"]
    assert locate("ethanol/fold-2").path == entry.path / "fold-2.safetensors"
    assert lasting_name("ethanol") == "ethanol"
    assert lasting_name("ethanol/fold-2") == "ethanol/fold-2"


def test_lasting_names(entry: Card, places: dict[str, Path]) -> None:
    make_entry(places["user"], "learned-1.5")
    assert lasting_name("learned-1.5") == "learned-1.5"
    here = Path.cwd()
    assert lasting_name("ethanol/fold-9") == str(here / "ethanol" / "fold-9")
    assert lasting_name(Path("ethanol")) == str(here / "ethanol")


def test_unknown_name_without_any_entry() -> None:
    with pytest.raises(RegistryError, match=registry.SEARCH_VARIABLE) as caught:
        load_model("ethanol")
    one_line(caught)


@pytest.mark.parametrize("name", ["runs/best", "/runs/best.pt"])
def test_missing_path_without_suffix_is_named_as_given(entry: Card, name: str) -> None:
    with pytest.raises(RegistryError) as caught:
        load_model(name)
    assert name in one_line(caught)


@pytest.mark.parametrize("load", [load_model, locate_members])
def test_unknown_member_lists_members(entry: Card, load: Callable[[str], object]) -> None:
    with pytest.raises(RegistryError) as caught:
        load("ethanol/fold-7")
    message = one_line(caught)
    assert "ethanol/fold-7" in message
    for k in range(3):
        assert f"ethanol/fold-{k}" in message


def test_file_in_the_folder_that_is_not_on_the_card_is_no_member(entry: Card) -> None:
    save_member(entry.path / "fold-9.safetensors", 9.0)
    with pytest.raises(RegistryError, match="fold-9"):
        load_model("ethanol/fold-9")


def test_hash_mismatch(entry: Card) -> None:
    # The other file is a valid checkpoint: only the card can tell.
    file = entry.path / "fold-1.safetensors"
    save_member(file, 9.0)
    assert scale(load_model(file)) == 9.0
    for name in ("ethanol", "ethanol/fold-1"):
        with pytest.raises(RegistryError, match="SHA-256") as caught:
            load_model(name)
        assert str(file) in one_line(caught)
    for name in ("ethanol", str(entry.path)):
        with pytest.raises(RegistryError, match="SHA-256"):
            locate_members(name)
    assert scale(load_model("ethanol/fold-0")) == 1.0


def test_missing_member_file(entry: Card) -> None:
    file = entry.path / "fold-1.safetensors"
    file.unlink()
    for load in (load_model, locate_members):
        with pytest.raises((CheckpointError, RegistryError)) as caught:
            load("ethanol")
        assert str(file) in one_line(caught)
    assert scale(load_model("ethanol/fold-2")) == 3.0


def test_list_models(places: dict[str, Path]) -> None:
    make_entry(places["shipped"], "b")
    make_entry(places["user"], "c")
    make_entry(places["second"], "a")
    cards = list_models()
    assert [card.name for card in cards] == ["a", "b", "c"]
    assert [card.path for card in cards] == [places["second"] / "a", places["shipped"] / "b", places["user"] / "c"]
    for card in cards:
        assert card.elements == ("H", "C", "O")
        assert card.metrics.calibration is not None
        assert card.metrics.calibration.force_mae == 0.05
        assert card.metrics.test is None


def test_every_listed_name_loads(entry: Card, places: dict[str, Path]) -> None:
    # A copy of an entry under a name of the user's own.
    shutil.copytree(entry.path, places["user"] / "mine")
    cards = list_models()
    assert len({card.name for card in cards}) == len(cards) == 2
    for card in cards:
        assert locate(card.name).path.parent == card.path


def test_a_link_is_an_entry_under_its_own_name(entry: Card, places: dict[str, Path]) -> None:
    places["user"].mkdir(parents=True)
    (places["user"] / "mine").symlink_to(entry.path)
    assert [card.name for card in list_models()] == ["ethanol", "mine"]
    assert get_card("mine").path == places["user"] / "mine"


def test_folders_without_a_card_are_no_entries(places: dict[str, Path]) -> None:
    save_member(places["user"] / "unfinished" / "fold-0.safetensors", 1.0)
    (places["shipped"]).mkdir()
    (places["shipped"] / "file").write_text("")
    assert list_models() == []


def test_card_round_trip(entry: Card) -> None:
    assert read_card(entry.path) == entry
    text = (entry.path / CARD_FILE).read_text(encoding="utf-8")
    assert "path" not in json.loads(text), "a card must not carry a path of the machine that wrote it"


@pytest.mark.parametrize("atoms", [molecule("CH3CH2OH"), bulk("Si", cubic=True), Atoms("H", pbc=(True, False, True))])
def test_structure_round_trip(entry: Card, atoms: Atoms) -> None:
    write_card(replace(entry, structure=Structure.from_atoms(atoms)), entry.path)
    assert read_card(entry.path).structure.atoms() == atoms


def test_missing_card(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="no such file") as caught:
        read_card(tmp_path)
    assert str(tmp_path / CARD_FILE) in one_line(caught)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"not\nJSON\n", b"[]", b"{}", b"\xff\xfe\x00", b'{"name": 5}', b"null"], ids=repr
)
def test_invalid_card(entry: Card, content: bytes) -> None:
    (entry.path / CARD_FILE).write_bytes(content)
    for call in (list_models, lambda: load_model("ethanol"), lambda: locate_members(entry.path)):
        with pytest.raises(RegistryError, match="not a valid card") as caught:
            call()
        assert str(entry.path / CARD_FILE) in one_line(caught)


@pytest.mark.parametrize(
    ("field", "value"), [("members", "fold-0"), ("metrics", {}), ("data", None), ("elements", 5), ("structure", {})]
)
def test_card_with_a_wrong_field_names_it(entry: Card, field: str, value: object) -> None:
    edit_card(entry, **{field: value})
    with pytest.raises(RegistryError, match=field) as caught:
        get_card("ethanol")
    one_line(caught)


@pytest.mark.parametrize("load", [load_model, locate_members])
def test_card_without_members(entry: Card, load: Callable[[str], object]) -> None:
    edit_card(entry, members=[])
    with pytest.raises(RegistryError) as caught:
        load("ethanol")
    assert str(entry.path) in one_line(caught)


def test_card_of_what_is_an_entry(entry: Card, tmp_path: Path) -> None:
    for name in ("ethanol", entry.path, str(entry.path)):
        assert find_card(name) == entry
    save_member(tmp_path / "folder" / "a.safetensors", 1.0)
    file = entry.path / "fold-1.safetensors"
    for name in ("ethanol/fold-1", file, str(file), tmp_path / "folder", "ethanole"):
        assert find_card(name) is None


def test_members_of_an_entry(entry: Card) -> None:
    for name in ("ethanol", entry.path, str(entry.path)):
        loaded = locate_members(name)
        assert [item.path for item in loaded] == [entry.path / f"fold-{k}.safetensors" for k in range(3)]
        assert [scale(item.model) for item in loaded] == [1.0, 2.0, 3.0]


def test_members_in_the_order_of_the_card(places: dict[str, Path]) -> None:
    make_entry(places["user"], "large", tuple(errors(0.1) for _ in range(11)))
    assert [scale(item.model) for item in locate_members("large")] == [k + 1.0 for k in range(11)]


def test_one_member_of_an_entry(entry: Card) -> None:
    file = entry.path / "fold-2.safetensors"
    for name in ("ethanol/fold-2", file, str(file)):
        (loaded,) = locate_members(name)
        assert loaded.path == file
        assert scale(loaded.model) == 3.0


def test_members_of_a_folder_without_a_card(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for name, number in (("b", 2.0), ("a", 1.0), ("c", 3.0)):
        save_member(folder / f"{name}.safetensors", number)
    (folder / "notes.txt").write_text("not a checkpoint")
    loaded = locate_members(folder)
    assert [scale(item.model) for item in loaded] == [1.0, 2.0, 3.0]
    assert [read_provenance(item.path)["scale"] for item in loaded] == [1.0, 2.0, 3.0]


def test_members_of_an_unfinished_cross_validation(tmp_path: Path) -> None:
    for k in range(2):
        save_member(tmp_path / "run" / f"fold-{k}" / "best.safetensors", k + 1.0)
        save_member(tmp_path / "run" / f"fold-{k}" / "last.safetensors", 9.0)
    assert [scale(item.model) for item in locate_members(tmp_path / "run")] == [1.0, 2.0]


def test_folder_with_a_broken_checkpoint(tmp_path: Path) -> None:
    save_member(tmp_path / "a.safetensors", 1.0)
    (tmp_path / "b.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError) as caught:
        locate_members(tmp_path)
    assert str(tmp_path / "b.safetensors") in one_line(caught)


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RegistryError, match=r"no \.safetensors") as caught:
        locate_members(tmp_path / "empty")
    assert str(tmp_path / "empty") in one_line(caught)


def test_a_registry_name_comes_before_a_folder_of_that_name(
    entry: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a run has left in the working folder."""
    monkeypatch.chdir(tmp_path)
    other = make_entry(tmp_path / "elsewhere", "ethanol", (errors(0.3),))
    shutil.copytree(other.path, tmp_path / "ethanol")
    for path in (locate("ethanol").path, *(m.path for m in locate_members("ethanol"))):
        assert path.parent == entry.path
    assert find_card("ethanol") == entry
    there = Path("ethanol")
    assert [m.path.parent for m in locate_members(there)] == [there]
    assert locate("./ethanol").path.parent == locate(there).path.parent == there


def test_folder_as_a_model_is_its_best_member_or_refused(entry: Card, tmp_path: Path) -> None:
    assert locate(entry.path).path == locate(str(entry.path)).path == locate("ethanol").path
    save_member(tmp_path / "run" / "a.safetensors", 1.0)
    with pytest.raises(
        RegistryError, match=r"run: a folder, but no registry entry \(no card.json\); name a file in it"
    ):
        load_model(tmp_path / "run")
    for name in ("", " "):
        with pytest.raises(RegistryError, match="no model"):
            load_model(name)


def test_folder_of_a_training(tmp_path: Path) -> None:
    """Beside its model lies the state that it goes on from, which is none."""
    save_member(tmp_path / "best.safetensors", 1.0)
    (tmp_path / "state.safetensors").write_bytes(b"of a training")
    assert [loaded.path for loaded in locate_members(tmp_path)] == [tmp_path / "best.safetensors"]
