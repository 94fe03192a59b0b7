"""The configuration of on-the-fly learning: a TOML file, or the same dataclasses in Python."""

from __future__ import annotations

import os
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from schnet_ase.networks import SchNetConfig
from schnet_ase.registry.card import NOT_STATED
from schnet_ase.training.config import STRICT, Name, TrainingConfig, existing, read_toml, validated
from schnet_ase.uncertainty.fit import check_sizes

CALIBRATION_EVERY = 5
"""One label in this many serves only for calibration."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, config=STRICT)
class ReferenceConfig:
    """Table ``[reference]``: the method that labels."""

    calculator: str
    """Import path of an ASE calculator's class, called with the arguments (``"tblite.ase.TBLite"``), or of a function
    that returns one, called with the atoms and the arguments (``"schnet_ase.learn.reference.pyscf"``). `schnet-ase
    learn` also finds modules beside its file."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments for the calculator."""
    level_of_theory: str = NOT_STATED
    """Level of theory in words, for the cards."""


@dataclass(frozen=True, config=STRICT)
class DynamicsConfig:
    """Table ``[dynamics]``: the Langevin dynamics that explores."""

    temperature: Positive = 300.0
    """K."""
    timestep: Positive = 0.5
    """fs."""
    friction: Positive = 10.0
    """1/ps."""
    quiet: Positive = 10.0
    """ps without a flag that end the run."""


@dataclass(frozen=True, config=STRICT)
class FlagConfig:
    """Table ``[flags]``: which frames are labelled."""

    threshold: Literal["auto"] | Positive | tuple[Positive, Positive] = "auto"
    """eV/Å; or (lo, hi), above hi a frame has failed and is not labelled; or ``"auto"``, from each generation's
    calibration. Without hi, it is five times lo."""
    labels: int = Field(default=5, ge=1)
    """Largest number of labels per flag."""
    explore: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 100.0
    """fs that a copy of the dynamics runs on after a flag, to collect candidates for labels."""

    @model_validator(mode="after")
    def _ordered(self) -> FlagConfig:
        if isinstance(self.threshold, tuple) and self.threshold[0] >= self.threshold[1]:
            raise ValueError(f"threshold is {list(self.threshold)}; expected lo < hi")
        return self


@dataclass(frozen=True, config=STRICT)
class LearnConfig:
    """A complete configuration file."""

    name: Name
    """Name of the ensembles."""
    start: str
    """File of the first frames. Frames with energy and forces keep them, the others are labelled. The dynamics starts
    from the frame with the lowest energy per atom, and keeps its constraints; every frame of the dynamics goes to the
    reference with the ``info``, initial charges and magnetic moments of that frame."""
    reference: ReferenceConfig
    """Calculator that labels frames."""
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    """Dynamics that explore."""
    flags: FlagConfig = field(default_factory=FlagConfig)
    """Thresholds for uncertain frames."""
    model: SchNetConfig = field(default_factory=SchNetConfig.md)
    """Architecture of the networks."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Training of the first generation, from random weights."""
    retraining: TrainingConfig | None = None
    """Training of later generations, from the previous weights; None: a fifth of the steps at a third of the learning
    rate."""
    max_labels: int = Field(default=500, ge=1)
    """Number of labelled frames, including those of `start`, that ends the run."""
    folds: int = Field(default=5, ge=2)
    """Number of folds, which is the number of members."""
    seed: int = Field(default=0, ge=0)
    """Seed of velocities, thermostat, splits and weights."""

    @model_validator(mode="after")
    def _possible(self) -> LearnConfig:
        check_sizes(self.folds, self.max_labels // CALIBRATION_EVERY)
        return self

    @property
    def warm(self) -> TrainingConfig:
        """`retraining`, or its default."""
        t = self.training
        steps, warmup = max(1, t.steps // 5), None if t.warmup is None else t.warmup // 5
        return self.retraining or replace(t, steps=steps, warmup=warmup, learning_rate=t.rate / 3.0)


def load_learn_config(path: str | os.PathLike[str], data_root: str | os.PathLike[str] | None = None) -> LearnConfig:
    """Read and validate a TOML file for learning on the fly.

    Parameters
    ----------
    path
        The file. Its table ``[model]`` is as in `schnet_ase.training.load_config`.
    data_root
        Folder from which a relative `start` begins; None: the folder of `path`.

    Raises
    ------
    ConfigError
        The file is missing, is not TOML, or has an unknown key or a value of the wrong type, or `start` does not exist.
    """
    file = Path(path)
    config = validated(file, read_toml(file), LearnConfig)
    root = file.parent if data_root is None else Path(data_root)
    return replace(config, start=existing(root, config.start, file, "start"))
