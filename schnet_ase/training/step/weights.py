"""The weight of each frame in the loss: from its file, its chemical formula and its kind of configuration."""

from __future__ import annotations

from collections.abc import Sequence

from schnet_ase.data import Frame
from schnet_ase.data.frames import formula
from schnet_ase.errors import DataError
from schnet_ase.training.config import TrainingConfig

DEFAULT = "Default"
"""Key for frames without a ``config_type``, as in MACE's ``config_type_weights``."""


def frame_weight(frame: Frame, training: TrainingConfig) -> float:
    """Return the product of the weights from the frame's file, its ``config_type`` and its formula."""
    weight = frame.weight * training.config_type_weights.get(frame.config_type or DEFAULT, 1.0)
    if training.frame_weights:
        weight *= training.frame_weights.get(formula(frame.geometry.numbers), 1.0)
    return weight


def check_weights(frames: Sequence[Frame], source: str, training: TrainingConfig) -> None:
    """Refuse a configuration that gives weights to frames that do not exist.

    Raises
    ------
    DataError
        There is no frame of a formula or a ``config_type``; the message lists the existing ones.
    """
    if training.frame_weights:
        there = {formula(frame.geometry.numbers) for frame in frames}
        if strange := sorted(set(training.frame_weights) - there):
            raise DataError(
                f"{source}: training.frame_weights names {', '.join(strange)}, of which there is no frame; "
                f"expected formulas in Hill's order, {min(there)} and the like"
            )
    if training.config_type_weights:
        types = {frame.config_type for frame in frames} - {""}
        if strange := sorted(set(training.config_type_weights) - types - {DEFAULT}):
            listed = f"the file has {', '.join(sorted(types))}" if types else "no frame of the file has one"
            raise DataError(
                f"{source}: training.config_type_weights names {', '.join(strange)}, which is the config_type of no "
                f"frame; {listed}"
            )
