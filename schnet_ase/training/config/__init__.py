"""Configuration of a training: its tables, and the TOML file that they are read from."""

from schnet_ase.training.config.file import existing, load_config, read_toml, validated
from schnet_ase.training.config.tables import (
    LEARNING_RATE,
    PRESETS,
    STRICT,
    DataConfig,
    LossKind,
    Name,
    RunConfig,
    TrainingConfig,
    absolute,
)

__all__ = [
    "LEARNING_RATE",
    "PRESETS",
    "STRICT",
    "DataConfig",
    "LossKind",
    "Name",
    "RunConfig",
    "TrainingConfig",
    "absolute",
    "existing",
    "load_config",
    "read_toml",
    "validated",
]
