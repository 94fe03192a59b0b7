"""`schnet-ase models` and `schnet-ase info`: what they print."""

from dataclasses import replace

from schnet_ase import save_model
from schnet_ase.registry.card import write_card
from tests.support.entries import errors, make_entry


def test_models(here, run):
    status, out, _ = run("models")
    assert status == 0
    assert "ethanol-emt" in out
    assert "4 members" in out


def test_models_show(here, run):
    status, out, _ = run("models", "show", "ethanol-emt")
    assert status == 0
    for expected in (
        "H C O",
        "fold-4, test",
        "ensemble, test",
        "4 random folds over 30 frames, 10 kept for calibration",
        "calibrated on 10 frames of ethanol.extxyz",
    ):
        assert expected in out


def test_models_show_of_one_network_in_a_folder(tmp_path, run):
    card = make_entry(tmp_path, "single", (errors(0.1),))
    status, out, _ = run("models", "show", str(card.path))
    assert status == 0
    assert out.startswith("single: made by the tests\n")
    assert "fold-0, validation" in out
    assert "ensemble" not in out
    assert "no calibration; it takes 4 members" in out


def test_models_show_of_an_entry_without_a_description(tmp_path, run):
    card = make_entry(tmp_path, "single", (errors(0.1),))
    write_card(replace(card, data=replace(card.data, description="")), card.path)
    assert run("models", "show", str(card.path))[1].startswith("single\n")


def test_models_show_of_a_member_is_the_card_of_its_entry(here, run):
    assert run("models", "show", "ethanol-emt/fold-2")[1] == run("models", "show", "ethanol-emt")[1]
    assert "force RMSE" in run("models", "show", "ethanol-emt")[1]


def test_models_get_of_what_is_installed(here, models, mistake, run):
    assert f"ethanol-emt is installed, in {models}" in mistake("models", "get", "ethanol-emt")
    assert "5 members and a student in" in run("models", "get", "rmd17-ethanol")[1]  # as the index has it


def test_info(here, run):
    status, out, _ = run("info")
    assert status == 0
    for expected in ("schnet_ase", "torch", "numba", "device", "models in"):
        assert expected in out


def test_info_of_a_model_says_which_engine_and_why(here, run, make_model):
    status, out, _ = run("info", "ethanol-emt")
    assert status == 0
    assert "compiled: it covers the model" in out
    save_model(make_model(0, activation="gelu"), "gelu.safetensors")
    status, out, _ = run("info", "gelu.safetensors")
    assert status == 0
    assert "autograd: the compiled engine does not cover activation 'gelu'" in out
    status, _, error = run("info", "ethanol-emd")
    assert status == 2
    assert "ethanol-emt" in error
