"""The TOML file: every mistake is one line that names the key."""

import pytest

from schnet_ase import SchNetConfig
from schnet_ase.errors import ConfigError
from schnet_ase.training import load_config
from tests.support.frames import TOML, write_run


def refused(tmp_path, toml):
    with pytest.raises(ConfigError) as caught:
        load_config(write_run(tmp_path, toml))
    message = str(caught.value)
    assert "\n" not in message
    assert "run.toml" in message
    return message


def test_valid_file(tmp_path):
    config = load_config(write_run(tmp_path))
    assert config.name == "ethanol-emt"
    assert config.model.n_features == 16
    assert config.model.envelope == SchNetConfig.md().envelope, "fields that are not given are those of the preset"
    assert config.training.learning_rate == 5e-3
    assert config.training.energy_weight == 0.01


def test_model_table_may_be_left_out(tmp_path):
    head, tail = TOML.split("[model]")
    config = load_config(write_run(tmp_path, head + "[training]" + tail.split("[training]")[1]))
    assert config.model == SchNetConfig.md()


def test_preset_and_gamma_from_spacing(tmp_path):
    toml = TOML.replace("n_features = 16", 'preset = "default"\ngamma = "spacing"')
    model = load_config(write_run(tmp_path, toml)).model
    assert (model.cutoff, model.gamma, model.n_interactions) == (30.0, None, 2)


def test_data_root(tmp_path):
    (tmp_path / "data").mkdir()
    config = write_run(tmp_path)
    for name in ("ethanol.extxyz", "test.extxyz"):
        (tmp_path / name).rename(tmp_path / "data" / name)
    with pytest.raises(ConfigError, match=r"data\.file is 'ethanol\.extxyz'.*--data-root"):
        load_config(config)
    assert load_config(config, tmp_path / "data").data.file == str(tmp_path / "data" / "ethanol.extxyz")


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("batch_size", "batchsize", "training.batchsize is unknown; did you mean batch_size?"),
        ("n_features", "features", "model.features is unknown; did you mean n_features or readout_features?"),
        ("folds = 4", "foldz = 4", "foldz is unknown; did you mean folds?"),
        ("calibration = 10", "calibrate = 10", "data.calibrate is unknown; did you mean calibration?"),
        ("batch_size", "colour", "training.colour is unknown; remove it or correct its spelling"),
        ("steps = 60", 'steps = "60"', "training.steps is '60'"),
        ("n_features = 16", "n_features = 16.5", "model.n_features is 16.5"),
        ("batch_size = 5", "batch_size = 0", "training.batch_size is 0"),
        ("n_rbf = 12", 'preset = "huge"', "model.preset is 'huge'"),
        ("n_rbf = 12", 'activation = "relu6"', "run.toml: activation 'relu6' is unknown"),
        ('name = "ethanol-emt"', "", "name is missing"),
        ('name = "ethanol-emt"', 'name = "a/b"', "name is 'a/b'"),
        ('file = "ethanol.extxyz"', "", "data.file is missing"),
        ('"test.extxyz"', '"nowhere.extxyz"', "data.test is 'nowhere.extxyz'"),
        (
            "[model]",
            "energy_unit = 'Rydbergs/Å'\n[model]",
            "data.energy_unit is 'Rydbergs/Å'; expected a unit",
        ),
        ('test = "test.extxyz"', "test = 0", "data.test"),
        ('test = "test.extxyz"', "test = 2.5", "data.test"),
        ("[model]", "training = 0\n[model]", "data.training is 0"),
        ("[model]", "exclude = 'uncharacterized.txt'\n[model]", "data.exclude is 'uncharacterized.txt'"),
        ("steps = 60", "steps = 60\nloss = 'cubed'", "training.loss is 'cubed'"),
        ("steps = 60", "steps = 60\nframe_weights = { H2O = 0 }", "training.frame_weights.H2O is 0"),
        ("seed = 3", "seed = 2026-11-23", "seed is"),
    ],
)
def test_mistakes_name_the_key(tmp_path, old, new, key):
    assert old in TOML
    assert key in refused(tmp_path, TOML.replace(old, new))


def test_qm9(tmp_path):
    (tmp_path / "uncharacterized.txt").write_text("58\n")
    toml = TOML.replace('"ethanol.extxyz"', '"qm9pack:"\nexclude = "uncharacterized.txt"\ntraining = 50_000')
    data = load_config(write_run(tmp_path, toml.replace('"test.extxyz"', "10_000"))).data
    assert (data.file, data.training, data.test) == ("qm9pack:", 50_000, 10_000)
    assert data.exclude == str(tmp_path / "uncharacterized.txt")


def test_folder_of_raw_files(tmp_path):
    (tmp_path / "dsgdb9nsd").mkdir()
    config = load_config(write_run(tmp_path, TOML.replace("ethanol.extxyz", "dsgdb9nsd")))
    assert config.data.file == str(tmp_path / "dsgdb9nsd")


def test_nothing_to_fit(tmp_path):
    toml = TOML.replace("steps = 60", "steps = 60\nenergy_weight = 0\nforce_weight = 0")
    assert "table training: energy_weight, force_weight and stress_weight are all 0" in refused(tmp_path, toml)


def test_not_toml(tmp_path):
    assert "not a TOML file" in refused(tmp_path, "name = [")


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "none.toml")
