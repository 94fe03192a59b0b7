"""The configuration of learning, and mistakes in it."""

import pytest

from schnet_ase.errors import ConfigError
from schnet_ase.learn import load_learn_config
from tests.support.frames import write_ethanol

TOML = """
name = "ethanol"
start = "start.extxyz"
[reference]
calculator = "ase.calculators.emt.EMT"
[flags]
threshold = 0.1
"""


def test_configuration(tmp_path):
    write_ethanol(tmp_path / "start.extxyz", 1)
    (tmp_path / "learn.toml").write_text(TOML)
    config = load_learn_config(tmp_path / "learn.toml")
    assert config.start == str(tmp_path / "start.extxyz")
    assert config.flags.threshold == 0.1
    assert config.warm.steps == config.training.steps // 5
    (tmp_path / "learn.toml").write_text(TOML.replace("0.1", "[0.1, 0.3]"))
    assert load_learn_config(tmp_path / "learn.toml").flags.threshold == (0.1, 0.3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("threshold = 0.1", "threshold = [0.3, 0.1]", r"threshold is \[0.3, 0.1\]; expected lo < hi"),
        ("threshold = 0.1", "thresholt = 0.1", "thresholt is unknown"),
        ("threshold = 0.1", 'threshold = "high"', r"key flags\.threshold is 'high'; input should be 'auto', or input"),
        (
            "[flags]",
            "[training]\nforce_weight = 0\nenergy_weight = 0\n[flags]",
            "table training: energy_weight, force_weight and stress_weight are all 0",
        ),
        ('name = "ethanol"', 'name = "ethanol"\nmax_labels = 10', "9"),
        ("start.extxyz", "none.extxyz", "start is 'none.extxyz', but there is no file"),
        ('[reference]\ncalculator = "ase.calculators.emt.EMT"', "", "key reference is missing"),
    ],
)
def test_mistakes_in_a_configuration(tmp_path, old, new, message):
    write_ethanol(tmp_path / "start.extxyz", 1)
    (tmp_path / "learn.toml").write_text(TOML.replace(old, new))
    with pytest.raises(ConfigError, match=message) as caught:
        load_learn_config(tmp_path / "learn.toml")
    assert "\n" not in str(caught.value)
