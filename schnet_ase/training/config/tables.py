"""The tables of a training's TOML file, as dataclasses that only hold what is valid."""

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
"""Of files and folders."""
Element = Annotated[str, AfterValidator(_is_element)]
"""Its symbol."""


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """Table ``[data]``: where the labelled frames are. Relative paths start from the folder of the TOML file."""

    file: str
    """Frames to train on (and to validate and calibrate on, see `validation` and `calibration`): whatever
    `read_dataset` reads, ``"qm9pack:"`` and a pattern of file names too."""
    test: str | Annotated[int, Field(ge=1)] | None = None
    """Frames that are only ever evaluated: another file, or so many of `file`, drawn at random."""
    extra: str | None = None
    """More frames to train on, and for nothing else, such as those that other models have labelled; in the unit and
    with the names of their format. ``{fold}`` in it stands for the number of the fold, counted from 1 (`train` and
    `tune`: 1), so that each can have its own."""
    exclude: str | None = None
    """Molecules of QM9 to leave out of `file`: a list like its ``uncharacterized.txt``."""
    energy_unit: Annotated[str, _unit_of(ENERGY)] | None = None
    """Unit of the energies in the files; unset: what a file states, else the format's own (kcal/mol for .npz, Hartree
    for QM9, eV else)."""
    force_unit: Annotated[str, _unit_of(FORCE)] | None = None
    """Unset: the energy's unit per the length's."""
    length_unit: Annotated[str, _unit_of(LENGTH)] | None = None
    """Unit of positions and cell; unset: what a file states, else Å."""
    stress_unit: Annotated[str, _unit_of(STRESS, ENERGY)] | None = None
    """Unit of a stress or, where it is a unit of energy, of a virial; unset: what energies and lengths imply."""
    energy_key: str | None = None
    """Name of the energies; unset: the format's own, else a name that says so, such as ``REF_energy``."""
    forces_key: str | None = None
    stress_key: str | None = None
    """Name of a stress or a virial."""
    skip_unlabelled: bool = False
    """Whether frames are left out that lack a label which the loss needs."""
    stream: bool | None = None
    """Whether frames are read from disk when they are needed, for data larger than memory; the numbers are the same.
    Unset: where the file is larger than 50 MB."""
    training: int | None = Field(default=None, ge=1)
    """How many frames to train on (`crossval`: shared by the folds); unset: all that are left."""
    validation: int | None = Field(default=None, ge=1)
    """`train`: how many frames are for validation; unset: a tenth."""
    calibration: int = Field(default=50, ge=0)
    """`crossval`: how many frames no fold touches, for calibration; 0: none is made."""
    by_molecule: bool = False
    """Whether the frames of each molecule, the same atoms in the same order, are split by themselves, as they would be
    if they were alone in the file. `training`, `validation`, `calibration` and a number for `test` then count frames
    of each molecule, and every batch has the molecules in their shares."""
    reference_energies: dict[Element, Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=dict)
    """Energies of single atoms, ``{ H = -13.6, O = -2041.8 }``, eV, that the network's energies are counted from; of
    elements that are not named, those of frames of isolated atoms, else a fit to the energies."""
    level_of_theory: str = NOT_STATED
    licence: str = NOT_STATED
    temperature: str = NOT_STATED
    """Of the sampling, in words: they go into the card."""
    description: str = ""

    @property
    def labels(self) -> LabelOptions:
        """What is said of the labels in the files."""
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
        """The same with nothing said of units and keys."""
        return replace(
            self,
            energy_unit=None,
            force_unit=None,
            length_unit=None,
            stress_unit=None,
            energy_key=None,
            forces_key=None,
            stress_key=None,
        )

    def extra_of(self, k: int) -> str | None:
        """`extra` of the fold with index `k`."""
        return None if self.extra is None else self.extra.replace("{fold}", str(k + 1))


@dataclass(frozen=True, config=STRICT)
class TrainingConfig:
    """Table ``[training]``: how the weights are found."""

    steps: int = Field(default=20_000, ge=1)
    batch_size: int = Field(default=10, ge=1)
    optimizer: Literal["adamw", "soap"] = "soap"
    """``"soap"``: Adam in the eigenbasis of the gradients' second moments; a step costs more and does more."""
    learning_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Unset: 3e-3, but for a training that starts from trained weights what `fine_tuning_rate` finds."""
    schedule: Literal["cosine", "report"] = "cosine"
    """``"cosine"``: linear warm-up, then to zero. ``"report"``: times 0.96 every 100,000 steps."""
    warmup: int | None = Field(default=None, ge=0)
    """Steps until the learning rate is up; unset: a tenth of all, at most 1,000."""
    loss: LossKind = "squared"
    """``"absolute"``: of the errors themselves, so that what is hard to learn counts for less than by their squares."""
    energy_weight: float = Field(default=0.01, ge=0, allow_inf_nan=False)
    """ρ of the loss, Å⁻² (absolute: Å⁻¹): the same number whether energies are in eV or in kcal/mol."""
    force_weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    stress_weight: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Of the squared error of the stress times V²/n, for n atoms in a cell of volume V, Å⁻² (absolute: of the error
    times V/√n, Å⁻¹): at 1 an error of 0.1 GPa counts about as much as one of 0.05 eV/Å in each force component."""
    frame_weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    """How much the frames of a chemical formula count in the loss, ``{ C6H6 = 2 }``; 1 where it is not named."""
    config_type_weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    """The same by what a frame's ``config_type`` says, ``{ IsolatedAtom = 0.1, Default = 1 }``; ``Default`` is for
    frames without one, and a type that is not named counts 1. Both multiply with the weight that a file gives a
    frame."""
    ema: float = Field(default=0.995, ge=0, lt=1)
    """Decay of the moving average of the weights that is validated and kept; 0: the weights themselves."""
    clip: float | None = Field(default=0.5, gt=0)
    """Largest norm of the gradient, in units of the loss's (eV-based); larger ones are scaled down."""
    weight_decay: float = Field(default=0.0, ge=0)
    validate_every: int = Field(default=1000, ge=1)
    """Steps between validations; each writes a checkpoint to resume from."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many validations without a better one; unset: never."""
    compile: bool | None = None
    """Loss and gradient as one compiled function, which no dropout allows; unset: where that pays and a C++ compiler
    is found."""

    @model_validator(mode="after")
    def _something_to_fit(self) -> Self:
        if not self.energy_weight and not self.force_weight and not self.stress_weight:
            raise ValueError("energy_weight, force_weight and stress_weight are all 0; nothing to fit")
        return self

    def to_dict(self) -> dict[str, Any]:
        """What is recorded of a training: all fields, defaults resolved."""
        return {**asdict(self), "learning_rate": self.rate, "warmup": self.warmup_steps}

    @property
    def rate(self) -> float:
        """`learning_rate`, or what it is where it is unset."""
        return LEARNING_RATE if self.learning_rate is None else self.learning_rate

    @property
    def warmup_steps(self) -> int:
        """`warmup`, or what it is where it is unset."""
        return min(1000, self.steps // 10) if self.warmup is None else self.warmup


@dataclass(frozen=True, config=STRICT)
class RunConfig:
    """A whole file."""

    name: Name
    """Of the registry entry and of the run folder."""
    data: DataConfig
    model: SchNetConfig = Field(default_factory=SchNetConfig.md)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    folds: int = Field(default=5, ge=2)
    """`crossval`: number of members."""
    seed: int = Field(default=0, ge=0)
    """Of the split, the initial weights and the order of the batches."""
    tune: TuneConfig | None = None
    """`tune`: what is searched; it means nothing to the others."""

    @model_validator(mode="after")
    def _searchable(self) -> Self:
        for key, values in (self.tune.search if self.tune else {}).items():
            for value in values.extremes:
                self.with_values({key: value})
        return self

    def with_values(self, values: dict[str, Value]) -> RunConfig:
        """The same with keys set, ``{"training.learning_rate": 1e-3}``, and nothing to search.

        Raises
        ------
        ConfigError
            A key that does not exist, or a value that is not valid with the others.
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
    """The same with paths that hold in every folder."""

    def path(name: str) -> str:
        return name if name == QM9_PACKAGE else str(Path(name).resolve())

    return replace(
        data,
        file=path(data.file),
        test=path(data.test) if isinstance(data.test, str) else data.test,
        extra=None if data.extra is None else path(data.extra),
        exclude=None if data.exclude is None else path(data.exclude),
    )
