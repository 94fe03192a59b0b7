"""Arguments of a training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from schnet_ase.data import Dataset, TrainingSplit
from schnet_ase.training.config import RunConfig
from schnet_ase.training.processes import ALONE, Processes


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """Arguments of one model's training, as `train` explains them."""

    config: RunConfig
    """Model and training hyperparameters."""
    dataset: Dataset
    """Checked frames in eV and Å."""
    split: TrainingSplit
    """Indices of the training and the validation frames."""
    folder: Path
    """Folder that keeps the model and the state of the training."""
    seed: int
    """Seed of the initial weights and the order of batches."""
    extra: Dataset | None = None
    """Additional training frames, with no elements that `dataset` does not have."""
    initial: Path | None = None
    """Checkpoint of the initial weights; None: random weights."""
    device: str = "cpu"
    """``"cpu"`` or ``"cuda"``."""
    processes: Processes = ALONE
    """Processes that train together, each with the same task."""
