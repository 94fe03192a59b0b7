"""On-the-fly learning: an ensemble that runs dynamics, asks for labels where it does not know, and goes on."""

from schnet_ase.learn.config import DynamicsConfig, FlagConfig, LearnConfig, ReferenceConfig, load_learn_config
from schnet_ase.learn.loop import LearnResult, learn

__all__ = [
    "DynamicsConfig",
    "FlagConfig",
    "LearnConfig",
    "LearnResult",
    "ReferenceConfig",
    "learn",
    "load_learn_config",
]
