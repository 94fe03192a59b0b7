"""Table ``[tune]`` of a configuration: the keys to search, and their ranges."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

Number = int | Annotated[float, Field(allow_inf_nan=False)]
Value = bool | Number | str


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class SearchRange:
    """Range of a searched key: a number from `low` to `high`, both included, or one of `choices`."""

    low: Number | None = None
    """Smallest value. If `low` and `high` are integers, only integers are drawn."""
    high: Number | None = None
    """Largest value."""
    log: bool = False
    """Whether to draw values evenly on a logarithmic scale."""
    choices: tuple[Value, ...] | None = None
    """Values to choose from, instead of `low` and `high`."""

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
        """Values to validate: if these are valid, all values of the range are."""
        return self.choices or tuple(number for number in (self.low, self.high) if number is not None)


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class TuneConfig:
    """Table ``[tune]``: keys of the tables ``[model]`` and ``[training]`` to search."""

    trials: int = Field(ge=1)
    """Number of settings to try. A larger number continues a search that is complete."""
    model: dict[str, SearchRange] = Field(default_factory=dict)
    """Ranges for keys of the table ``[model]``."""
    training: dict[str, SearchRange] = Field(default_factory=dict)
    """Ranges for keys of the table ``[training]``."""

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
        """Ranges by key, such as ``"training.learning_rate"``, in alphabetical order."""
        model = {f"model.{key}": values for key, values in self.model.items()}
        training = {f"training.{key}": values for key, values in self.training.items()}
        return dict(sorted({**model, **training}.items()))
