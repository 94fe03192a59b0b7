"""Tables of a training's TOML file as dataclasses that accept only valid values."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from ase.data import chemical_symbols
from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from schnet_ase.data.labels.options import LabelOptions
from schnet_ase.data.labels.units import ENERGY, FORCE, LENGTH, STRESS, Kind, is_unit
from schnet_ase.data.readers.qm9 import PACKAGE as QM9_PACKAGE
from schnet_ase.errors import ConfigError
from schnet_ase.networks import SchNetConfig
from schnet_ase.registry.card import NOT_STATED
from schnet_ase.training.config.mistakes import first_mistake
from schnet_ase.training.config.tune import TuneConfig, Value
from schnet_ase.uncertainty.calibration import FALSE_FLAG_RATE

PRESETS = {
    "md": SchNetConfig.md,
    "small": SchNetConfig.small,
    "default": SchNetConfig.default,
    "large": SchNetConfig.large,
}
LossKind = Literal["squared", "absolute"]


def _unit_of(*kinds: Kind) -> AfterValidator:
    def known(text: str) -> str:
        if not any(is_unit(text, kind) for kind in kinds):
            raise ValueError(f"expected a unit of {kinds[0].name}, such as {kinds[0].known}")
        return text

    return AfterValidator(known)


STRICT = ConfigDict(extra="forbid", strict=True)
LEARNING_RATE = 3e-3
CALIBRATION_FRAMES = 50
"""Number of frames kept for calibration unless the configuration says otherwise."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
T = TypeVar("T")


def _is_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(
            "expected letters, digits, dots, hyphens and underscores, without a blank, and a letter or digit first"
        )
    return name


def _is_element(symbol: str) -> str:
    if symbol not in chemical_symbols[1:]:
        raise ValueError(f"expected symbols of elements, such as H, and not {symbol!r}")
    return symbol


Name = Annotated[str, AfterValidator(_is_name)]
"""Name that is valid for files and folders."""
Element = Annotated[str, AfterValidator(_is_element)]
"""Symbol of a chemical element."""


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """Table ``[data]``: the labelled frames and how they are read and split.

    Relative paths start from the folder of the TOML file.
    """

    file: str
    """Frames for training, validation and calibration: anything that `read_dataset` reads, including ``"qm9pack:"``
    and a pattern of file names."""
    test: str | Annotated[int, Field(ge=1)] | None = None
    """Frames for tests only: another file, or the number of frames of `file` to draw at random."""
    extra: str | None = None
    """File of additional frames for training only, such as frames labelled by other models; in the unit and with the
    names of its format. ``{fold}`` in it stands for the number of the fold, counted from 1 (`train` and `tune`: 1), so
    that each fold can have its own."""
    exclude: str | None = None
    """List of QM9 molecules to leave out of `file`, in the format of QM9's ``uncharacterized.txt``."""
    energy_unit: Annotated[str, _unit_of(ENERGY)] | None = None
    """Unit of the energies in the files; unset: the unit that a file states, else that of the format (kcal/mol for
    .npz, Hartree for QM9, otherwise eV)."""
    force_unit: Annotated[str, _unit_of(FORCE)] | None = None
    """Unit of the forces; unset: the unit of energy per unit of length."""
    length_unit: Annotated[str, _unit_of(LENGTH)] | None = None
    """Unit of positions and cell; unset: the unit that a file states, else Å."""
    stress_unit: Annotated[str, _unit_of(STRESS, ENERGY)] | None = None
    """Unit of the stress or, if it is a unit of energy, of the virial; unset: follows from energies and lengths."""
    energy_key: str | None = None
    """Name of the energies; unset: that of the format, else a common name such as ``REF_energy``."""
    forces_key: str | None = None
    """Name of the forces; unset: as for `energy_key`."""
    stress_key: str | None = None
    """Name of the stress or virial; unset: as for `energy_key`."""
    skip_unlabelled: bool = False
    """Whether to leave out frames without a label that the loss needs; otherwise they are an error."""
    stream: bool | None = None
    """Whether to read frames from disk when they are needed, for data larger than memory, with the same results.
    Unset: only if the file is larger than 50 MB."""
    training: int | None = Field(default=None, ge=1)
    """Number of training frames (`crossval`: shared by the folds); unset: all remaining frames."""
    validation: int | None = Field(default=None, ge=1)
    """`train`: number of validation frames; unset: a tenth of the frames."""
    calibration: int | None = Field(default=None, ge=0)
    """`crossval`: number of frames kept for calibration, which no fold uses; 0: no calibration; unset: 50, or with
    `stated_split` all frames of that subset."""
    false_flag_rate: float = Field(default=FALSE_FLAG_RATE, gt=0, lt=1)
    """`crossval`: share of frames like the calibration frames that are above the threshold of the monitor."""
    by_molecule: bool = False
    """Whether to split the frames of each molecule (the same atoms in the same order) separately, as if each molecule
    were alone in the file. `training`, `validation`, `calibration` and a number for `test` then count frames of each
    molecule, and every batch contains the molecules in proportion to their numbers of frames."""
    stated_split: bool = False
    """Whether every frame says which subset it is in, by ``split`` in its file: ``test``, ``calibration``, or a name of
    one of the folds, such as ``fold-1``. `training`, `validation`, `calibration` and a number for `test` then say how
    many frames of a subset are drawn; unset: all of them. `train` validates on the fold whose name is first."""
    reference_energies: dict[Element, Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=dict)
    """Energies of single atoms in eV, ``{ H = -13.6, O = -2041.8 }``, that are subtracted before the network is fitted.
    For other elements, the energies of frames of isolated atoms are used or, without these, a fit to the energies."""
    level_of_theory: str = NOT_STATED
    """Level of theory of the labels, such as PBE/def2-SVP, for the card; ensembles of different levels are refused."""
    licence: str = NOT_STATED
    """Licence of the data, for the card."""
    temperature: str = NOT_STATED
    """Temperature at which the frames were sampled, in words, for the card."""
    description: str = ""
    """Description of the data in a line, for the card."""

    @model_validator(mode="after")
    def _one_split(self) -> Self:
        if self.stated_split and self.by_molecule:
            raise ValueError("stated_split and by_molecule are both true; expected one way to split the frames")
        return self

    @property
    def labels(self) -> LabelOptions:
        """Options for reading the labels in the files."""
        return LabelOptions(
            self.energy_unit,
            self.force_unit,
            self.length_unit,
            self.stress_unit,
            self.energy_key,
            self.forces_key,
            self.stress_key,
        )

    def in_its_formats_way(self) -> DataConfig:
        """Return a copy without units and keys, so that a file is read with those of its format."""
        return replace(self, **asdict(LabelOptions()))

    def extra_of(self, k: int) -> str | None:
        """Return the path `extra` for the fold with index `k`; None if there is none."""
        return None if self.extra is None else self.extra.replace("{fold}", str(k + 1))


@dataclass(frozen=True, config=STRICT)
class TrainingConfig:
    """Table ``[training]``: hyperparameters of the optimization."""

    steps: int = Field(default=20_000, ge=1)
    """Number of optimization steps."""
    batch_size: int = Field(default=10, ge=1)
    """Number of frames per batch."""
    optimizer: Literal["adamw", "soap"] = "soap"
    """``"soap"``: Adam in the eigenbasis of the gradients' second moments; a step costs more and achieves more."""
    learning_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Largest learning rate; unset: 3e-3 or, if training starts from trained weights, that of `fine_tuning_rate`."""
    schedule: Literal["cosine", "report"] = "cosine"
    """``"cosine"``: linear warm-up, then cosine decay to zero. ``"report"``: factor 0.96 every 100,000 steps."""
    warmup: int | None = Field(default=None, ge=0)
    """Number of steps in which the learning rate rises; unset: a tenth of all steps, at most 1,000."""
    loss: LossKind = "squared"
    """``"squared"``: squared errors. ``"absolute"``: absolute errors, which give less weight to frames with large
    errors."""
    energy_weight: float = Field(default=0.01, ge=0, allow_inf_nan=False)
    """Weight ρ of the energies in the loss, Å⁻² (absolute: Å⁻¹); its value is the same in eV and in kcal/mol."""
    force_weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Weight of the forces in the loss, without a unit."""
    stress_weight: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Weight of the squared stress error times V²/n, for n atoms in a cell of volume V, Å⁻² (absolute: of the error
    times V/√n, Å⁻¹). At 1, an error of 0.1 GPa counts about as much as one of 0.05 eV/Å in each force component."""
    frame_weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    """Weights in the loss for frames by chemical formula, ``{ C6H6 = 2 }``; 1 for formulas that are not named."""
    config_type_weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    """Weights in the loss for frames by their ``config_type``, ``{ IsolatedAtom = 0.1, Default = 1 }``. ``Default`` is
    for frames without one; a type that is not named has weight 1. Both weights are multiplied with the weight that a
    file gives a frame."""
    ema: float = Field(default=0.995, ge=0, lt=1)
    """Decay of the exponential moving average of the weights, which is validated and saved; 0: no average."""
    clip: float | None = Field(default=0.5, gt=0)
    """Largest norm of the gradient of the loss (eV-based); larger gradients are scaled down to it."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay of the optimizer."""
    validate_every: int = Field(default=1000, ge=1)
    """Number of steps between validations; each writes a checkpoint to resume from."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many validations without improvement; unset: never."""
    compile: bool | None = None
    """Whether to compile loss and gradient into one function, which is impossible with dropout; unset: only where it
    saves time and a C++ compiler is available."""

    @model_validator(mode="after")
    def _something_to_fit(self) -> Self:
        if not self.energy_weight and not self.force_weight and not self.stress_weight:
            raise ValueError("energy_weight, force_weight and stress_weight are all 0; nothing to fit")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, with defaults resolved, as checkpoints record them."""
        return {**asdict(self), "learning_rate": self.rate, "warmup": self.warmup_steps}

    @property
    def rate(self) -> float:
        """Learning rate, or its default for random weights if it is unset."""
        return LEARNING_RATE if self.learning_rate is None else self.learning_rate

    @property
    def warmup_steps(self) -> int:
        """Number of warm-up steps, or its default if unset."""
        return min(1000, self.steps // 10) if self.warmup is None else self.warmup


@dataclass(frozen=True, config=STRICT)
class RunConfig:
    """Configuration of a training, a cross-validation or a hyperparameter search: the content of a whole TOML file."""

    name: Name
    """Name of the registry entry and of the run folder."""
    data: DataConfig
    """Table ``[data]``: labelled frames and their split."""
    model: SchNetConfig = Field(default_factory=SchNetConfig.md)
    """Table ``[model]``: architecture of the network."""
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    """Table ``[training]``: hyperparameters of the optimization."""
    folds: int = Field(default=5, ge=2)
    """`crossval`: number of folds, which is the number of members."""
    seed: int = Field(default=0, ge=0)
    """Seed of the split, the initial weights and the order of the batches."""
    tune: TuneConfig | None = None
    """Table ``[tune]``: ranges to search; only `tune` uses it."""

    @model_validator(mode="after")
    def _searchable(self) -> Self:
        for key, values in (self.tune.search if self.tune else {}).items():
            for value in values.extremes:
                self.with_values({key: value})
        return self

    def with_values(self, values: dict[str, Value]) -> RunConfig:
        """Return a copy with changed values, such as ``{"training.learning_rate": 1e-3}``, and without `tune`.

        Raises
        ------
        ConfigError
            A key does not exist, or a value is not valid together with the others.
        """
        tables: dict[str, dict[str, Any]] = {"model": {}, "training": {}}
        for key, value in values.items():
            table, field = key.split(".")
            tables[table][field] = value
        model = _changed(self.model, "model", tables["model"])
        return replace(self, model=model, training=_changed(self.training, "training", tables["training"]), tune=None)


def _changed(table: T, name: str, changes: dict[str, Any]) -> T:
    try:
        return replace(table, **changes)  # type: ignore[type-var]
    except ValidationError as error:
        raise ConfigError(first_mistake(error, type(table), prefix=f"tune.{name}.")) from error


def absolute(data: DataConfig) -> DataConfig:
    """Return a copy with absolute paths."""

    def path(name: str) -> str:
        return name if name == QM9_PACKAGE else str(Path(name).resolve())

    return replace(
        data,
        file=path(data.file),
        test=path(data.test) if isinstance(data.test, str) else data.test,
        extra=None if data.extra is None else path(data.extra),
        exclude=None if data.exclude is None else path(data.exclude),
    )
