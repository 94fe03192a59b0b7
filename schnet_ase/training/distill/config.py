"""Configuration of a student: the dynamics that give its frames, its network and its training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as validated_dataclass

from schnet_ase.errors import TrainingError
from schnet_ase.networks import SchNetConfig
from schnet_ase.registry.loading import locate
from schnet_ase.registry.lookup import owning_card
from schnet_ase.registry.provenance import Provenance
from schnet_ase.training.config import TrainingConfig, read_toml, validated

DEFAULTS: dict[str, Any] = {
    "steps": 60_000,
    "learning_rate": 2e-3,
    "loss": "absolute",
    "energy_weight": 0.05,
    "clip": 100.0,
}
"""Defaults of a student's table ``[training]``. The labels have no noise, so many steps pay off. With absolute errors,
hot frames, whose errors are large, do not dominate the loss."""
BATCHES = 2
"""Default batch size as a multiple of the teacher's."""
STRESS_WEIGHT = 0.1
"""Default weight of the stress for an entry that is periodic in all directions."""
RUN = 250
"""Largest number of frames of a run."""
RUNS = 10
"""Least number of runs, so that some can be kept for validation even if there are few frames."""
KEPT_APART = 20
"""One in this many runs is kept for validation."""
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True)
class Sampling:
    """Parameters of a teacher's dynamics.

    Parameters
    ----------
    frames
        Total number of frames, at least 2.
    temperatures
        Lowest and highest temperature in K; the temperatures of the runs are spread evenly between them.
    seed
        Seed of the velocities and thermostats.

    Raises
    ------
    TrainingError
        A value is out of range.
    """

    frames: int = 10_000
    temperatures: tuple[float, float] = (300.0, 1000.0)
    seed: int = 0

    def __post_init__(self) -> None:
        lowest, highest = self.temperatures
        if not 0.0 < lowest <= highest < math.inf:
            raise TrainingError(
                f"temperatures are {lowest:g} and {highest:g} K; expected the lower one first, both above 0"
            )
        if self.frames < 2:
            raise TrainingError(f"frames = {self.frames}; expected at least 2, of which one is kept for validation")

    @property
    def runs(self) -> list[int]:
        """Number of frames of each run."""
        n_runs = max(min(RUNS, self.frames), math.ceil(self.frames / RUN))
        return [self.frames // n_runs + (k < self.frames % n_runs) for k in range(n_runs)]

    def temperature(self, k: int) -> float:
        """Return the temperature in K of the run with index `k`.

        Multiples of the golden ratio, modulo 1, are spread evenly in any sequence of consecutive runs, so the runs kept
        for validation cover the temperatures as all runs do.
        """
        lowest, highest = self.temperatures
        return lowest + (highest - lowest) * (k * GOLDEN % 1.0)

    @property
    def kept_apart(self) -> int:
        """Number of runs, the last ones, that are kept for validation."""
        return max(1, len(self.runs) // KEPT_APART)


@validated_dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class StudentConfig:
    """A student's network and its training."""

    model: SchNetConfig
    """Architecture of the network."""
    training: TrainingConfig
    """Hyperparameters of the training."""


def load_student_config(entry: str, path: Path | None = None) -> StudentConfig:
    """Read a student's configuration; by default, a network like a member's and the default training.

    Parameters
    ----------
    entry
        Name or folder of the teacher's entry.
    path
        TOML file with the table ``[model]`` or ``[training]`` or both, as for ``train``. The keys of ``[model]`` change
        the architecture of the teacher's members or, if it names a ``preset``, that of the preset. None: defaults.

    Raises
    ------
    ConfigError
        The file is missing or not TOML, or has an unknown key or a value of the wrong type.
    RegistryError
        There is no such entry.
    """
    member, card = locate(entry, student=False), owning_card(entry)
    table = {} if path is None else read_toml(path)
    model, training = table.get("model", {}), table.get("training", {})
    if isinstance(model, dict) and "preset" not in model:
        model = {**member.model.config.to_dict(), **model}
    if isinstance(training, dict):
        teachers = Provenance.read(member.path).identity.training or {}
        batch_size = BATCHES * teachers.get("batch_size", TrainingConfig().batch_size)
        stress_weight = STRESS_WEIGHT if card is not None and all(card.structure.pbc) else 0.0
        training = {**DEFAULTS, "batch_size": batch_size, "stress_weight": stress_weight, **training}
    return validated(path or Path(entry), {**table, "model": model, "training": training}, StudentConfig)
