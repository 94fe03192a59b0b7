"""Convert what a file holds under a key to numbers of the right kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schnet_ase.data.labels.keys import Held, Quantity
from schnet_ase.errors import DataError
from schnet_ase.geometry.arrays import Floats

_WEIGHTS = ("weight", "config_weight")
_OF_LABELS: Mapping[str, Quantity] = {
    "config_energy_weight": "energy",
    "config_forces_weight": "forces",
    "config_stress_weight": "stress",
    "config_virials_weight": "stress",
}
_ASYMMETRY = 0.01
"""Largest relative antisymmetric part that a stress may have; it is discarded."""


def scalar(energy: object, where: str) -> float | None:
    """Return an energy of any type as a number; None stays None.

    Raises
    ------
    DataError
        It is not exactly one number.
    """
    if energy is None:
        return None
    if isinstance(energy, bool | np.bool_):
        raise DataError(f"{where} has energy {energy}; expected a number")
    try:
        value: NDArray[np.float64] = np.asarray(energy, dtype=float)
    except (ValueError, TypeError) as error:
        raise DataError(f"{where} has energy {energy!r}; expected a number") from error
    if value.size != 1:
        raise DataError(f"{where} has an energy of shape {value.shape}; expected one number")
    return float(value.reshape(()))


def numbers_of(one: Held, where: str) -> Floats:
    """Return an array of numbers; raise DataError if it is none."""
    try:
        return np.array(one.value, dtype=float)
    except (ValueError, TypeError) as error:
        raise DataError(f"{where} has {one.words} = {one.value!r}; expected an array of numbers") from error


def voigt(value: Floats, one: Held, where: str) -> Floats:
    """Return (6,) numbers from six, or from nine that form a symmetric matrix; otherwise raise DataError."""
    if value.size == 6:
        return value.reshape(6)
    if value.size != 9:
        raise DataError(f"{where} has {one.words} of shape {value.shape}; expected (6,), (9,) or (3, 3)")
    full = value.reshape(3, 3)
    if np.abs(full - full.T).max() > _ASYMMETRY * np.abs(full).max():
        raise DataError(f"{where} has {one.words} that is not symmetric; expected a symmetric 3 x 3 matrix")
    half = 0.5 * (full + full.T)
    return half[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def weight_of(held: Sequence[Held], where: str) -> float:
    """Return the weight of a frame, by default 1; raise DataError if it is no weight."""
    weights = [(one.words, one.value) for one in held if one.name in _WEIGHTS and one.per_atom is not True]
    if not weights:
        return 1.0
    numbers = {_number(name, value, where) for name, value in weights}
    if len(numbers) > 1:
        raise DataError(f"{where} has {' and '.join(f'{n} = {v}' for n, v in weights)}; expected one weight")
    return numbers.pop()


def _number(name: str, value: Any, where: str) -> float:
    """Return a weight as a number; raise DataError if it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where} has {name} = {value!r}; expected a number") from error
    if not 0.0 <= number < np.inf:
        raise DataError(f"{where} has {name} = {number}; expected a finite number that is not negative")
    return number


def weights_of_labels(held: Sequence[Held], where: str) -> list[tuple[str, Quantity, float]]:
    """Return names, labels and values of the weights of single labels, as in MACE; raise DataError if one is no
    weight."""
    found = list[tuple[str, Quantity, float]]()
    for one in held:
        if one.name in _OF_LABELS and one.value is not None:
            found.append((one.words, _OF_LABELS[one.name], _number(one.words, one.value, where)))
    return found
