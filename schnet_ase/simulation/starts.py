"""One prediction of all structures, before each of them is run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ase import Atoms

from schnet_ase.calculators.prediction import Prediction
from schnet_ase.calculators.predictor import Predictor
from schnet_ase.errors import SchNetError
from schnet_ase.simulation.sdf import UNREADABLE


class Start(NamedTuple):
    """What the model says about one structure."""

    number: int
    """Number of the structure, from 0."""
    refusal: str
    """Why the model refuses it; empty if it does not."""
    deviation: float
    """Largest ``forces_deviation``, eV/Å; NaN for a single network and for a structure that is refused."""


def starts(predict: Predictor, frames: Sequence[Atoms]) -> list[Start]:
    """Predict all of `frames` together, and say of each whether it can be run, and how much the members differ."""
    readable = [number for number, atoms in enumerate(frames) if UNREADABLE not in atoms.info]
    found = [Start(n, atoms.info[UNREADABLE], math.nan) for n, atoms in enumerate(frames) if UNREADABLE in atoms.info]
    for number, predicted in zip(readable, _predicted(predict, [frames[n] for n in readable]), strict=True):
        if isinstance(predicted, SchNetError):
            found.append(Start(number, str(predicted).removeprefix("structure 0: "), math.nan))
        else:
            spread = predicted.spread
            found.append(Start(number, "", math.nan if spread is None else float(spread.forces_deviation.max())))
    return sorted(found)


def _predicted(predict: Predictor, frames: Sequence[Atoms]) -> Iterator[Prediction | SchNetError]:
    """Yield predictions, and the error of each structure that is refused, which is sought by halving the frames."""
    try:
        predictions = predict(frames)
    except SchNetError as error:
        if len(frames) == 1:
            yield error
            return
    else:
        yield from predictions
        return
    half = len(frames) // 2
    yield from _predicted(predict, frames[:half])
    yield from _predicted(predict, frames[half:])
