"""Provenance of a model in the header of its checkpoint; only this module reads and writes these keys."""

from __future__ import annotations

import os
from dataclasses import asdict
from importlib.metadata import version
from typing import Annotated, Any, NamedTuple

from pydantic import ConfigDict, PlainSerializer, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from schnet_ase.errors import CheckpointError
from schnet_ase.registry.checkpoint import read_provenance
from schnet_ase.uncertainty.metrics import Errors

_AS_IT_IS = ConfigDict(ser_json_inf_nan="constants")  # otherwise a loss of NaN would be written as null


class Row(NamedTuple):
    """Result of one validation during a training."""

    step: int
    epoch: float
    learning_rate: float
    training_loss: float
    """Mean loss of the steps since the last validation; (eV/Å)², or eV/Å for the loss of absolute errors."""
    validation_loss: float
    errors: Errors
    """Errors on the validation frames."""
    seconds: float
    """Duration of the training so far, without interruptions."""

    def to_json(self) -> dict[str, Any]:
        return {**self._asdict(), "errors": asdict(self.errors)}

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Row:
        return cls(**{**table, "errors": Errors(**table["errors"])})


@dataclass(frozen=True, config=_AS_IT_IS)
class Identity:
    """Everything that the weights of a training depend on; None where unknown or not used."""

    config: dict[str, Any] | None = None
    """Network, as `SchNetConfig.to_dict` returns it."""
    training: dict[str, Any] | None = None
    """Hyperparameters, as `TrainingConfig.to_dict` returns them."""
    seed: int | None = None
    """Seed of the initial weights and of the order of the batches."""
    data_sha256: str | None = None
    data_file: str | None = None
    data_units: str | None = None
    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    reference_energies: dict[str, float] | None = None
    """Reference energies given in the configuration, eV by chemical symbol."""
    training_frames: tuple[int, ...] | None = None
    """Indices of the training frames in the data file."""
    validation_frames: tuple[int, ...] | None = None
    """Indices of the validation frames in the data file."""
    extra_file: str | None = None
    """File of additional training frames."""
    extra_sha256: str | None = None
    extra_parts: tuple[str, ...] | None = None
    """SHA-256 of each file, if the additional frames come from several."""
    initial_sha256: str | None = None
    """SHA-256 of the checkpoint that training started from."""

    def to_json(self) -> dict[str, Any]:
        table: dict[str, Any] = _IDENTITY.dump_python(self, mode="json")
        return table


@dataclass(frozen=True, config=_AS_IT_IS)
class Origin:
    """More about the training frames; not part of the identity, because older training states do not have it."""

    data_parts: tuple[str, ...] | None = None
    """SHA-256 of each file, if the data come from several."""
    initial_data: tuple[str, ...] | None = None
    """SHA-256 of every file of frames that the initial weights were trained on."""
    formulas: tuple[str, ...] | None = None
    """Chemical formulas, in Hill order, of all frames that the weights depend on; None: unknown, or too many."""
    periodic: bool | None = None
    """Whether any frame was periodic."""


@dataclass(frozen=True, config=_AS_IT_IS)
class Provenance:
    """Origin of a model; a field is None if the file does not contain it.

    The JSON in the header is flat and uses the names of the fields here. Any other key belongs to the user.
    """

    identity: Identity = Identity()
    origin: Origin = Origin()
    learning_rate: float | None = None
    """Largest learning rate of the training."""
    validation: Annotated[Row, PlainSerializer(Row.to_json)] | None = None
    versions: dict[str, str] | None = None
    """Versions that `library_versions` returned."""
    name: str | None = None
    """Name of the model in its entry, such as ``rmd17-ethanol/fold-1``."""
    calibration_frames: tuple[int, ...] | None = None
    """Indices in the data file of frames that no member of the entry was trained or validated on."""
    best_step: int | None = None
    """Step of the training at which these weights were validated."""
    teacher: tuple[str, ...] | None = None
    """For a student: SHA-256 of the members whose mean it learned."""

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Provenance:
        """Read the provenance from the checkpoint at `path`.

        Raises
        ------
        CheckpointError
            The file cannot be read, or a value has the wrong type for its key.
        """
        table = read_provenance(path)
        try:
            return _PROVENANCE.validate_python({**table, "identity": table, "origin": table})
        except ValidationError as error:
            mistake = error.errors()[0]
            where = ".".join(str(part) for part in mistake["loc"] if part not in ("identity", "origin"))
            raise CheckpointError(
                f"{path}: provenance has {where} = {mistake['input']!r:.60}; expected what a training writes "
                f"({mistake['msg']}): save the model without this key, or under another name"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """Return the table for the header: all keys of identity and origin, and the other keys that are not None."""
        table = _PROVENANCE.dump_python(self, mode="json")
        identity, origin = table.pop("identity"), table.pop("origin")
        return {**identity, **origin, **{key: value for key, value in table.items() if value is not None}}

    @property
    def extra_hashes(self) -> set[str]:
        """SHA-256 of the files of additional training frames."""
        return _known(self.identity.extra_sha256, self.identity.extra_parts)

    @property
    def all_hashes(self) -> set[str]:
        """SHA-256 of every file of frames that the model, or the weights it started from, was trained on."""
        own = _known(self.identity.data_sha256, self.origin.data_parts)
        return own | self.extra_hashes | {*(self.origin.initial_data or ())}


_IDENTITY = TypeAdapter(Identity)
_PROVENANCE = TypeAdapter(Provenance)


def _known(one: str | None, parts: tuple[str, ...] | None) -> set[str]:
    return {*(() if one is None else (one,)), *(parts or ())}


def library_versions() -> dict[str, str]:
    """Return the versions of the packages that made a model, for its provenance."""
    return {name: version(name) for name in ("schnet_ase", "torch", "ase", "numpy")}
