"""SchNet as an ASE calculator: energies and conservative forces, ensembles, and training."""

from schnet_ase.calculator import SchNetCalculator
from schnet_ase.checkpoint import save_model
from schnet_ase.ensemble import SchNetEnsembleCalculator
from schnet_ase.errors import UncertaintyExceeded
from schnet_ase.model import SchNet, SchNetConfig
from schnet_ase.monitor import UncertaintyMonitor
from schnet_ase.registry import list_models, load_model

__all__ = [
    "SchNet",
    "SchNetCalculator",
    "SchNetConfig",
    "SchNetEnsembleCalculator",
    "UncertaintyExceeded",
    "UncertaintyMonitor",
    "list_models",
    "load_model",
    "save_model",
]
