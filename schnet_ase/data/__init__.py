"""Read reference data, check it, and split it."""

from schnet_ase.data.frames import Dataset, Frame
from schnet_ase.data.labels.checks import check_frames
from schnet_ase.data.labels.options import LabelOptions
from schnet_ase.data.readers.dataset import read_dataset
from schnet_ase.data.splits import CrossValidationSplit, TrainingSplit, held_out, split_folds, split_training
from schnet_ase.data.store import stored_dataset
from schnet_ase.data.stored import StoredFrames

__all__ = [
    "CrossValidationSplit",
    "Dataset",
    "Frame",
    "LabelOptions",
    "StoredFrames",
    "TrainingSplit",
    "check_frames",
    "held_out",
    "read_dataset",
    "split_folds",
    "split_training",
    "stored_dataset",
]
