"""On-the-fly learning: an ensemble runs dynamics, requests labels where it is uncertain, learns, and resumes."""

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
