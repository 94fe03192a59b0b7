"""What one training is: everything that it needs to begin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from schnet_ase.data import Dataset, TrainingSplit
from schnet_ase.training.config import RunConfig
from schnet_ase.training.processes import ALONE, Processes


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """One model to train; see `train` for how each of these is used."""

    config: RunConfig
    """Model and training hyperparameters."""
    dataset: Dataset
    """Checked frames in eV and Å."""
    split: TrainingSplit
    """Which of them are for training and for validation."""
    folder: Path
    """Where the training keeps its model and its state."""
    seed: int
    """Of the initial weights and the order of batches."""
    extra: Dataset | None = None
    """More frames to train on, of the elements of `dataset`."""
    initial: Path | None = None
    """Checkpoint whose weights to start from; None: random ones."""
    device: str = "cpu"
    """``"cpu"`` or ``"cuda"``."""
    processes: Processes = ALONE
    """That train together, each with the same task."""
