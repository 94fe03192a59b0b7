"""Seconds of learning."""

from dataclasses import replace
from pathlib import Path

from ase import Atoms
from ase.io import write

from schnet_ase import SchNetConfig
from schnet_ase.learn import DynamicsConfig, FlagConfig, LearnConfig, ReferenceConfig
from schnet_ase.training import TrainingConfig
from tests.support.frames import labelled_ethanol, write_ethanol

FOLDS = 4
STARTING = 45


def tiny(folder: Path, **changes) -> LearnConfig:
    """Seconds of learning from EMT."""
    start = folder / "start.extxyz"
    if not start.exists():
        write_ethanol(start, STARTING)
    config = LearnConfig(
        name="ethanol-emt",
        start=str(start),
        reference=ReferenceConfig("ase.calculators.emt.EMT"),
        dynamics=DynamicsConfig(temperature=100.0, quiet=0.05),
        flags=FlagConfig(threshold=(0.05, 1000.0), labels=3, explore=10.0),
        model=SchNetConfig(n_features=8, n_interactions=1, n_rbf=8, cutoff=4.0, gamma=None, envelope="polynomial"),
        training=TrainingConfig(steps=20, batch_size=5, learning_rate=1e-2, warmup=2, validate_every=10, ema=0.9),
        max_labels=STARTING + 5,
        folds=FOLDS,
        seed=1,
    )
    return replace(config, **changes)


def write_partly_labelled(path: Path, n_frames: int, labelled: int) -> list[Atoms]:
    """Frames of which the first so many keep their labels."""
    frames = labelled_ethanol(n_frames)
    for frame in frames[labelled:]:
        frame.calc = None
    write(path, frames)
    return frames


class Untrained(Exception):
    """A run has come to its first training."""
