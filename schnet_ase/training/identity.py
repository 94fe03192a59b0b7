"""What makes a training this one and no other, so that a folder or an entry of another is not taken for it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from schnet_ase.data import Dataset, TrainingSplit
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import Card, TrainingData
from schnet_ase.registry.checkpoint import read_provenance
from schnet_ase.training.config import RunConfig
from schnet_ase.training.state import differences


def identity(
    config: RunConfig, dataset: Dataset, split: TrainingSplit, seed: int, extra: Dataset | None, initial: Path | None
) -> dict[str, Any]:
    """What the weights of a training depend on, as its checkpoints say it; JSON-able."""
    training = config.training.to_dict()
    if initial is not None:
        training["learning_rate"] = config.training.learning_rate  # unset, it follows from all the rest
    return {
        "config": config.model.to_dict(),
        "training": training,
        "seed": seed,
        "data_sha256": dataset.sha256,
        "data_file": dataset.source,
        "data_units": dataset.units,
        "energy_key": config.data.energy_key,
        "forces_key": config.data.forces_key,
        "stress_key": config.data.stress_key,
        "reference_energies": config.data.reference_energies,
        "training_frames": split.training.tolist(),
        "validation_frames": split.validation.tolist(),
        "extra_file": None if extra is None else extra.source,
        "extra_sha256": None if extra is None else extra.sha256,
        "extra_parts": None if extra is None else list(extra.parts),
        "initial_sha256": None if initial is None else sha256(initial),
    }


def entry_differences(card: Card, data: TrainingData, members: list[dict[str, Any]]) -> list[str]:
    """Dotted keys in which an entry differs from that which a run would write; none: it is the run's.

    Parameters
    ----------
    card
        Of the entry.
    data
        What the run would write of its frames.
    members
        `identity` of each of the run's trainings, and the ``calibration_frames``.
    """
    found = differences({"data": asdict(card.data)}, {"data": asdict(data)})
    if len(card.members) != len(members):
        return [*found, "folds"]
    for member, expected in zip(card.members, members, strict=True):
        written = read_provenance(card.path / member.file)
        found += differences({key: written.get(key) for key in expected}, expected)
    return sorted({*found})
