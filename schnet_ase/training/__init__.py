"""Training: configuration, loss, trainer, cross-validation. It does not use the calculators."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from schnet_ase.evaluation.calibrate import calibrate_entry
from schnet_ase.evaluation.leakage import unseen_frames
from schnet_ase.training.config import DataConfig, RunConfig, TrainingConfig, load_config
from schnet_ase.training.config.tune import SearchRange, TuneConfig
from schnet_ase.training.from_config import train_from_config
from schnet_ase.training.single import train
from schnet_ase.training.state import TrainingResult

if TYPE_CHECKING:
    from schnet_ase.crossval.folds import FoldProgress
    from schnet_ase.crossval.run import crossval
    from schnet_ase.tune.trial_task import TrialProgress
    from schnet_ase.tune.tune import TuneResult, tune

__all__ = [
    "DataConfig",
    "FoldProgress",
    "RunConfig",
    "SearchRange",
    "TrainingConfig",
    "TrainingResult",
    "TrialProgress",
    "TuneConfig",
    "TuneResult",
    "calibrate_entry",
    "crossval",
    "load_config",
    "train",
    "train_from_config",
    "tune",
    "unseen_frames",
]

_ABOVE = {
    "crossval": "crossval.run",
    "FoldProgress": "crossval.folds",
    "TrialProgress": "tune.trial_task",
    "TuneResult": "tune.tune",
    "tune": "tune.tune",
}
"""Names from packages that import this one; they are imported on first use."""


def __getattr__(name: str) -> Any:
    if name not in _ABOVE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"schnet_ase.{_ABOVE[name]}"), name)
