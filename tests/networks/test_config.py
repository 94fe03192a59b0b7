"""The network's configuration."""

import json

import pytest
from pydantic import ValidationError

from schnet_ase import SchNetConfig


def test_exponential_radial_functions_take_no_gamma() -> None:
    with pytest.raises(ValueError, match='gamma is 10.0, but radial="exponential" takes none; set gamma to None'):
        SchNetConfig(radial="exponential", gamma=10.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_features", 0),
        ("n_features", 1.5),
        ("n_interactions", 0),
        ("n_rbf", 1),
        ("cutoff", 0.0),
        ("cutoff", -1.0),
        ("cutoff", float("inf")),
        ("cutoff", float("nan")),
        ("gamma", 0.0),
        ("gamma", -1.0),
        ("gamma", float("inf")),
        ("envelope", "step"),
        ("readout_features", 0),
        ("max_z", 1),
        ("activation", "relu"),
        ("readout_activation", "relu"),
        ("norm", "batch"),
        ("dropout", -0.1),
        ("dropout", 1.0),
        ("n_layers", 3),
    ],
)
def test_config_rejects(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        SchNetConfig(**{field: value})


def test_config_is_frozen() -> None:
    with pytest.raises(AttributeError):
        SchNetConfig().cutoff = 5.0


@pytest.mark.parametrize(
    "config",
    [
        SchNetConfig.small(),
        SchNetConfig.default(),
        SchNetConfig.large(),
        SchNetConfig.md(),
        SchNetConfig(gamma=None, norm="rms", dropout=0.1, activation="silu", envelope="cosine", interaction_bias=False),
    ],
)
def test_config_survives_json(config: SchNetConfig) -> None:
    assert SchNetConfig(**json.loads(json.dumps(config.to_dict()))) == config
