"""Training: configuration, loss, trainer, cross-validation. Nothing of the calculators."""

from schnet_ase.training.calibrate import calibrate_entry, unseen_frames
from schnet_ase.training.config import DataConfig, RunConfig, TrainingConfig, load_config
from schnet_ase.training.crossval import crossval
from schnet_ase.training.folds import FoldProgress
from schnet_ase.training.from_config import train_from_config
from schnet_ase.training.single import train
from schnet_ase.training.state import TrainingResult
from schnet_ase.training.trial_task import TrialProgress
from schnet_ase.training.tune import TuneResult, tune
from schnet_ase.training.tune_config import SearchRange, TuneConfig

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
