"""What a checkpoint's header says of where its model comes from: the one place that reads and writes these keys."""

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

_AS_IT_IS = ConfigDict(ser_json_inf_nan="constants")  # else a loss that is NaN would be null in the header


class Row(NamedTuple):
    """One validation of a training."""

    step: int
    epoch: float
    learning_rate: float
    training_loss: float
    """Mean over the steps since the last validation, weights as they were at each; (eV/Å)², of absolute errors eV/Å."""
    validation_loss: float
    errors: Errors
    """On the validation frames."""
    seconds: float
    """Of training since it was first started, interruptions left out."""

    def to_json(self) -> dict[str, Any]:
        return {**self._asdict(), "errors": asdict(self.errors)}

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Row:
        return cls(**{**table, "errors": Errors(**table["errors"])})


@dataclass(frozen=True, config=_AS_IT_IS)
class Identity:
    """What the weights of a training depend on; None: not known, or there was none."""

    config: dict[str, Any] | None = None
    """`SchNetConfig.to_dict`."""
    training: dict[str, Any] | None = None
    """`TrainingConfig.to_dict`."""
    seed: int | None = None
    """Of the first weights and of the order of the batches."""
    data_sha256: str | None = None
    data_file: str | None = None
    data_units: str | None = None
    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    reference_energies: dict[str, float] | None = None
    """eV, those that the configuration gives."""
    training_frames: tuple[int, ...] | None = None
    """Indices in the data file."""
    validation_frames: tuple[int, ...] | None = None
    extra_file: str | None = None
    """More frames to train on."""
    extra_sha256: str | None = None
    extra_parts: tuple[str, ...] | None = None
    """SHA-256 of each of several files."""
    initial_sha256: str | None = None
    """Of the file of the weights that training started from."""

    def to_json(self) -> dict[str, Any]:
        table: dict[str, Any] = _IDENTITY.dump_python(self, mode="json")
        return table


@dataclass(frozen=True, config=_AS_IT_IS)
class Origin:
    """More about the frames behind a model; not part of the identity, which older training states have without it."""

    data_parts: tuple[str, ...] | None = None
    """SHA-256 of each of several files of data."""
    initial_data: tuple[str, ...] | None = None
    """SHA-256 of every file of frames behind the weights that training started from."""
    formulas: tuple[str, ...] | None = None
    """Chemical formulas, in Hill's order, of all frames behind the weights; None: not known, or very many."""
    periodic: bool | None = None
    """Whether any frame was."""


@dataclass(frozen=True, config=_AS_IT_IS)
class Provenance:
    """Where a model comes from; None: its file does not say.

    The JSON in the header is flat, with the names of the fields here. Keys that are not among them are a user's own.
    """

    identity: Identity = Identity()
    origin: Origin = Origin()
    learning_rate: float | None = None
    """The largest."""
    validation: Annotated[Row, PlainSerializer(Row.to_json)] | None = None
    versions: dict[str, str] | None = None
    """See `library_versions`."""
    name: str | None = None
    """Of a member of an entry, such as ``rmd17-ethanol/fold-1``."""
    calibration_frames: tuple[int, ...] | None = None
    """Indices in the data file, of frames that no member of its entry was trained or validated on."""
    best_step: int | None = None
    teacher: tuple[str, ...] | None = None
    """SHA-256 of the members whose mean a student has learned."""

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Provenance:
        """What the checkpoint at `path` says.

        Raises
        ------
        CheckpointError
            It cannot be read, or a value is not of the kind that its key has.
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
        """The keys of the header: of identity and origin all, of the others those that are known."""
        table = _PROVENANCE.dump_python(self, mode="json")
        identity, origin = table.pop("identity"), table.pop("origin")
        return {**identity, **origin, **{key: value for key, value in table.items() if value is not None}}

    @property
    def extra_hashes(self) -> set[str]:
        """SHA-256 of the files that the model was trained on besides its data."""
        return _known(self.identity.extra_sha256, self.identity.extra_parts)

    @property
    def all_hashes(self) -> set[str]:
        """SHA-256 of every file of frames behind the model, those behind the weights that it started from too."""
        own = _known(self.identity.data_sha256, self.origin.data_parts)
        return own | self.extra_hashes | {*(self.origin.initial_data or ())}


_IDENTITY = TypeAdapter(Identity)
_PROVENANCE = TypeAdapter(Provenance)


def _known(one: str | None, parts: tuple[str, ...] | None) -> set[str]:
    return {*(() if one is None else (one,)), *(parts or ())}


def library_versions() -> dict[str, str]:
    """Versions of what made a model, for its provenance."""
    return {name: version(name) for name in ("schnet_ase", "torch", "ase", "numpy")}
