"""Fixed terms in files: kept, and refused by what knows none."""

import json

import pytest
from safetensors import safe_open

from schnet_ase import SchNetCalculator, SchNetConfig, SchNetEnsembleCalculator, load_model, save_model
from schnet_ase.errors import CheckpointError, StructureError
from schnet_ase.registry import checkpoint

SMALL = {"n_features": 8, "readout_features": 8, "n_rbf": 8}


def metadata(file):
    with safe_open(file, framework="pt") as opened:
        return opened.metadata()


def test_round_trip(make_model, tmp_path, ethanol):
    model = make_model(0, **SMALL, prior="zbl", dispersion="pbe")
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.config == model.config
    ethanol.positions *= 0.7
    energies = [SchNetCalculator(m, dtype="float64").get_potential_energy(ethanol) for m in (model, loaded)]
    assert energies[0] == energies[1]


def test_header_names_the_terms_and_a_package_that_knows_none_refuses_the_file(make_model, tmp_path, monkeypatch):
    file = tmp_path / "model.safetensors"
    save_model(make_model(0, **SMALL, prior="zbl"), file)
    known = metadata(file)
    config = json.loads(known["header"])["config"]
    assert config["prior"] == "zbl"
    assert "dispersion" not in config
    assert known["version"] == "2"
    monkeypatch.setattr(checkpoint, "WITH_TERMS", "1")  # as in a package that reads format 1 alone
    with pytest.raises(CheckpointError, match="format version '2'") as caught:
        load_model(file)
    assert "upgrade schnet_ase" in str(caught.value)


def test_file_of_a_model_without_terms_is_what_it_was(make_model, tmp_path):
    file = tmp_path / "model.safetensors"
    save_model(make_model(0, **SMALL), file)
    assert metadata(file)["version"] == "1"
    config = json.loads(metadata(file)["header"])["config"]
    assert not {"prior", "dispersion"} & config.keys()
    assert load_model(file).config.prior is None


def test_configurations_are_json(make_model):
    for terms in ({}, {"prior": "zbl"}, {"prior": "zbl", "dispersion": "pbe"}):
        config = SchNetConfig(**SMALL, **terms)
        assert SchNetConfig(**json.loads(json.dumps(config.to_dict()))) == config


def test_members_have_the_same_terms(make_model):
    with pytest.raises(StructureError, match="member 1 has another config"):
        SchNetEnsembleCalculator([make_model(0, **SMALL), make_model(1, **SMALL, prior="zbl")])
