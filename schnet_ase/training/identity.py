"""Identity of a training, by which a folder or an entry of another training is recognized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from schnet_ase.data.frames import formulas
from schnet_ase.output.files import sha256
from schnet_ase.registry.applicability import formulas_behind
from schnet_ase.registry.card import Card, TrainingData
from schnet_ase.registry.provenance import Identity, Origin, Provenance
from schnet_ase.training.state import differences
from schnet_ase.training.task import TrainingTask

MANY = 100
"""Largest number of chemical formulas on a card."""


def identity(task: TrainingTask) -> Identity:
    """Return what the weights of a training depend on, for its checkpoints."""
    config, dataset, extra, initial = task.config, task.dataset, task.extra, task.initial
    training = config.training.to_dict()
    if initial is not None:
        training["learning_rate"] = config.training.learning_rate  # if unset, it follows from the other keys
    return Identity(
        config=config.model.to_dict(),
        training=training,
        seed=task.seed,
        data_sha256=dataset.sha256,
        data_file=dataset.source,
        data_units=dataset.units,
        energy_key=config.data.energy_key,
        forces_key=config.data.forces_key,
        stress_key=config.data.stress_key,
        reference_energies=config.data.reference_energies,
        training_frames=tuple(task.split.training.tolist()),
        validation_frames=tuple(task.split.validation.tolist()),
        extra_file=None if extra is None else extra.source,
        extra_sha256=None if extra is None else extra.sha256,
        extra_parts=None if extra is None else extra.parts,
        initial_sha256=None if initial is None else sha256(initial),
    )


def origin(task: TrainingTask) -> Origin:
    """Return more about the frames of a training, for its checkpoints."""
    return Origin(
        data_parts=task.dataset.parts,
        initial_data=None if task.initial is None else tuple(sorted(Provenance.read(task.initial).all_hashes)),
        formulas=formulas_to_keep(task),
        periodic=any(frame.geometry.pbc.any() for frame in task.dataset.frames),
    )


def formulas_to_keep(task: TrainingTask) -> tuple[str, ...] | None:
    """Return the chemical formulas of the frames of a training and its initial weights; None: unknown, or too many."""
    found = {*formulas(task.dataset.frames), *(() if task.extra is None else formulas(task.extra.frames))}
    if task.initial is not None:
        earlier = formulas_behind(task.initial)
        if earlier is None:
            return None
        found |= earlier
    return tuple(sorted(found)) if len(found) <= MANY else None


def entry_differences(card: Card, data: TrainingData, members: Sequence[Provenance]) -> list[str]:
    """Return the dotted keys in which an entry differs from the one that a run would write; empty if it is the same.

    Parameters
    ----------
    card
        Card of the entry.
    data
        Description of the frames that the run would write.
    members
        Identity and calibration frames of each model of the run.
    """
    found = differences({"data": asdict(card.data)}, {"data": asdict(data)})
    if len(card.members) != len(members):
        return [*found, "folds"]
    for member, expected in zip(card.members, members, strict=True):
        found += differences(_compared(Provenance.read(card.path / member.file)), _compared(expected))
    return sorted({*found})


def _compared(member: Provenance) -> dict[str, Any]:
    return {**member.identity.to_json(), "calibration_frames": member.calibration_frames}
