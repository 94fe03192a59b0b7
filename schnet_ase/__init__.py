"""SchNet as an ASE calculator: energies and conservative forces, ensembles, and training."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from schnet_ase.calculators.ensemble import SchNetEnsembleCalculator
    from schnet_ase.calculators.prediction import Prediction, Spread
    from schnet_ase.calculators.predictor import Predictor, predict
    from schnet_ase.calculators.single import SchNetCalculator
    from schnet_ase.errors import UncertaintyExceeded
    from schnet_ase.monitor.monitor import UncertaintyMonitor
    from schnet_ase.networks import SchNet, SchNetConfig
    from schnet_ase.registry.checkpoint import save_model
    from schnet_ase.registry.loading import load_model
    from schnet_ase.registry.lookup import list_models
    from schnet_ase.registry.structure import structure

__all__ = [
    "Prediction",
    "Predictor",
    "SchNet",
    "SchNetCalculator",
    "SchNetConfig",
    "SchNetEnsembleCalculator",
    "Spread",
    "UncertaintyExceeded",
    "UncertaintyMonitor",
    "list_models",
    "load_model",
    "predict",
    "save_model",
    "structure",
]

_MODULES = {
    "Prediction": "calculators.prediction",
    "Predictor": "calculators.predictor",
    "SchNet": "networks",
    "SchNetCalculator": "calculators.single",
    "SchNetConfig": "networks",
    "SchNetEnsembleCalculator": "calculators.ensemble",
    "Spread": "calculators.prediction",
    "UncertaintyExceeded": "errors",
    "UncertaintyMonitor": "monitor.monitor",
    "list_models": "registry.lookup",
    "load_model": "registry.loading",
    "predict": "calculators.predictor",
    "save_model": "registry.checkpoint",
    "structure": "registry.structure",
}


def __getattr__(name: str) -> Any:
    # Imported on first use, so that `schnet-ase --help` does not wait seconds for torch.
    if name == "__version__":
        from importlib.metadata import version  # half of the time that this package takes to import

        return version(__name__)
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
