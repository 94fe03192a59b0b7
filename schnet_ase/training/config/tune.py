"""The table ``[tune]`` of a configuration: which keys are searched, and over which values."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

Number = int | Annotated[float, Field(allow_inf_nan=False)]
Value = bool | Number | str


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class SearchRange:
    """What a searched key may be: a number from `low` to `high`, both included, or one of `choices`."""

    low: Number | None = None
    """If `low` and `high` are integers, so is what is drawn."""
    high: Number | None = None
    log: bool = False
    """Whether the logarithm is searched evenly."""
    choices: tuple[Value, ...] | None = None

    @model_validator(mode="after")
    def _range_or_choices(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("expected choices alone, or low and high")
            if len(set(self.choices)) < max(2, len(self.choices)):
                raise ValueError("expected two or more choices that differ")
        elif self.low is None or self.high is None:
            raise ValueError("expected low and high, or choices")
        elif self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError("expected low < high" + (", both above 0" if self.log else ""))
        return self

    @property
    def extremes(self) -> tuple[Value, ...]:
        """Values that all others are valid with."""
        return self.choices or tuple(number for number in (self.low, self.high) if number is not None)


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class TuneConfig:
    """Table ``[tune]``: keys of the tables ``[model]`` and ``[training]`` to search."""

    trials: int = Field(ge=1)
    """How many settings are tried. A search that is over goes on when it is raised."""
    model: dict[str, SearchRange] = Field(default_factory=dict)
    training: dict[str, SearchRange] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        if not self.search:
            raise ValueError("expected a key to search, such as training.learning_rate = { low = 1e-3, high = 3e-2 }")
        for weight in ("loss", "energy_weight", "force_weight", "frame_weights"):
            if weight in self.training:
                raise ValueError(f"training.{weight} is part of the loss that trials are compared by; leave it out")
        return self

    @property
    def search(self) -> dict[str, SearchRange]:
        """The ranges by their keys, ``"training.learning_rate"`` and so on, in alphabetical order."""
        model = {f"model.{key}": values for key, values in self.model.items()}
        training = {f"training.{key}": values for key, values in self.training.items()}
        return dict(sorted({**model, **training}.items()))
