"""A run has a name as soon as it has a model: the same one for calculators, the command line and `load_model`."""

import json

import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator, load_model
from schnet_ase.errors import RegistryError
from schnet_ase.registry.applicability import advice, images, strange, taught
from schnet_ase.registry.card import read_card
from schnet_ase.registry.loading import locate, locate_members
from schnet_ase.registry.lookup import find_card, owning_card
from schnet_ase.training import crossval, load_config, train_from_config
from tests.support.entries import make_entry, save_member
from tests.support.frames import TOML, write_run

TINY = TOML.replace("steps = 60", "steps = 10").replace('name = "ethanol-emt"', 'name = "butanol"')


@pytest.fixture(scope="module", autouse=True)
def no_relaxed_structures():
    """They take most of the time of entries that are barely trained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("schnet_ase.training.entry.relax", lambda models, start: start)
        yield


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with ``runs/butanol`` of train and ``runs/folds`` of crossval."""
    folder = tmp_path_factory.mktemp("here")
    config = load_config(write_run(folder, TINY))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("schnet_ase.training.trainer.draw_history", lambda rows, folder: None)
        train_from_config(config, folder / "runs" / "butanol")
        crossval(config, folder / "runs" / "folds", folder / "models", workers=1)
    return folder


@pytest.fixture
def inside(here, monkeypatch):
    monkeypatch.chdir(here)
    return here


def test_a_training_by_its_folder(inside, run):
    assert locate("runs/butanol").path.name == "best.safetensors"
    assert [m.path for m in locate_members("runs/butanol")] == [locate("runs/butanol").path]
    assert SchNetCalculator("runs/butanol", engine="autograd").todict()["model"] == str(inside / "runs" / "butanol")
    status, out, err = run("models", "show", "runs/butanol")
    assert status == 0, err
    for said in ("without a card", "H C O", "C2H6O", "ethanol.extxyz", "36 to train, 4 to validate on", "10 of 10"):
        assert said in out


def test_folds_by_the_folder_of_their_run(inside):
    members = locate_members("runs/folds")
    assert [m.path.parent.name for m in members] == ["fold-1", "fold-2", "fold-3", "fold-4"]
    best = read_card(inside / "models" / "butanol").best
    assert locate("runs/folds").path.parent.name == best.file.removesuffix(".safetensors")
    SchNetEnsembleCalculator("runs/folds", engine="autograd")
    SchNetCalculator("runs/folds", engine="autograd")


@pytest.mark.parametrize("command", ["evaluate", "show", "md", "info"])
def test_a_name_without_its_folder_is_found_out(inside, mistake, command):
    arguments = {
        "evaluate": ["evaluate", "butanol", "test.extxyz"],
        "show": ["models", "show", "butanol"],
        "md": ["md", "butanol"],
        "info": ["info", "butanol"],
    }[command]
    assert "no model 'butanol': neither a registry entry nor a file; did you mean runs/butanol?" in mistake(*arguments)


def test_a_misspelt_name_of_a_run(inside):
    for wrong in ("butanl", "runs/butanl"):
        with pytest.raises(RegistryError, match=r"did you mean .*runs/butanol"):
            load_model(wrong)


def test_a_name_that_is_near_none_lists_what_there_is(inside):
    with pytest.raises(RegistryError, match=r"nor a file; there are 3bpa, .*runs/butanol.*water$"):
        load_model("zzzz")


def test_folds_of_a_run_are_measured_by_their_names(inside, run):
    out = run("evaluate", "runs/folds", "ethanol.extxyz", "--output", "folds.png", "--overwrite")[1]
    assert [f"fold-{k} (40 frames)" in out for k in range(1, 5)] == [True] * 4
    assert "best (" not in out


def test_what_a_run_was_taught_is_in_its_file(inside):
    ethanol, methanol = molecule("CH3CH2OH"), molecule("CH3OH")
    for name in ("runs/butanol", "runs/folds", "runs/butanol/best.safetensors"):
        model = taught(name)
        assert model == (name, ("C2H6O",), False, False, None)
        assert strange(model, ethanol) is None
        assert advice(model, ethanol, "take shorter steps") == "take shorter steps"
        assert strange(model, methanol).startswith("CH4O is not what this model knows, C2H6O; ")
    boxed = Atoms(ethanol, cell=[5, 5, 5], pbc=True)
    assert "runs/butanol was trained on free molecules" in images(taught("runs/butanol"), boxed, 5.0, moving=False)


def test_one_network_cannot_be_monitored(inside, mistake):
    write("ethanol.xyz", molecule("CH3CH2OH"))
    assert "runs/butanol is a single network" in mistake("md", "runs/butanol", "ethanol.xyz", "--monitor")
    assert "none.xyz: there is no such file" in mistake("md", "runs/butanol", "none.xyz")


def test_on_the_fly_learning_by_its_folder(places, tmp_path):
    """Its ensemble is that of the last generation, with its card and its calibration."""
    folder = tmp_path / "runs" / "learned"
    for number in (0, 1, 10):
        generation = folder / f"generation-{number:03d}"
        card = make_entry(generation, "ethanol")
        save_member(generation / "folds" / "fold-1" / "best.safetensors", 7.0)
    assert find_card(folder).path == owning_card(folder).path == card.path
    assert locate(folder).path == card.path / card.best.file
    assert [m.path for m in locate_members(folder)] == [card.path / m.file for m in card.members]
    SchNetEnsembleCalculator(folder, engine="autograd")
    # One that is being written is not there yet.
    (folder / "generation-011" / ".ethanol.new").mkdir(parents=True)
    (folder / "generation-011" / ".ethanol.new" / "card.json").write_text(json.dumps({}))
    assert find_card(folder).path == card.path


def test_the_same_cross_validation_again_repeats_its_result(inside, run):
    first = (inside / "models" / "butanol" / "card.json").read_bytes()
    arguments = ("crossval", "run.toml", "--output", "runs/folds", "--models", "models", "--workers", "1")
    status, out, err = run(*arguments)
    assert status == 0, err
    assert "ensemble on test frames" in out
    assert "wrote" not in out
    assert "models/butanol: exists already, with the same configuration and data" in err
    assert (inside / "models" / "butanol" / "card.json").read_bytes() == first


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("steps = 10", "steps = 11", "training.steps"),
        ("n_rbf = 12", "n_rbf = 13", "config.n_rbf"),
        ("seed = 3", "seed = 4", "seed"),
        ("folds = 4", "folds = 5", "folds"),
        ("[model]", 'licence = "mine"\n[model]', "data.licence"),
    ],
)
def test_an_entry_of_another_run_is_not_taken_for_this_ones(inside, mistake, old, new, key):
    (inside / "other.toml").write_text(TINY.replace(old, new))
    message = mistake("crossval", "other.toml", "--output", "runs/other", "--models", "models", "--workers", "1")
    assert "models/butanol: an entry of this name exists, with other " in message
    assert key in message
    assert "remove it or give the configuration another name" in message
    assert not (inside / "runs" / "other").exists()


def test_the_same_training_again_repeats_its_result(inside, run):
    arguments = ("train", "run.toml", "--output", "runs/butanol", "--models", "of-train")
    assert run(*arguments)[0] == 0
    first = (inside / "of-train" / "butanol" / "card.json").read_bytes()
    status, out, err = run(*arguments)
    assert status == 0, err
    assert "exists already" in err
    assert (inside / "of-train" / "butanol" / "card.json").read_bytes() == first


@pytest.mark.parametrize("name", ["but db", "", "-a", "é", "a/b", "a\\n"])
def test_what_a_name_may_hold_is_said_in_words(inside, mistake, name):
    (inside / "named.toml").write_text(TINY.replace('name = "butanol"', f'name = "{name}"'))
    message = mistake("train", "named.toml")
    assert "expected letters, digits, dots, hyphens and underscores, without a blank" in message
    assert "^" not in message
