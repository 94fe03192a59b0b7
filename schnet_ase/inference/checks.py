"""Refuse systems for which no network can give an answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.data import chemical_symbols

from schnet_ase.errors import StructureError
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.geometry.system import Geometry
from schnet_ase.inference.backend import Closest

MIN_DISTANCE = 1e-3  # Å; closer atoms are probably one atom twice, and the direction between them is noise


def check_finite(system: Geometry) -> None:
    """Refuse a system without atoms, or whose positions or cell are not finite.

    Raises
    ------
    StructureError
        The system has no atoms, or a position or the cell is not finite; the message names the atom.
    """
    if not len(system.numbers):
        raise StructureError("no atoms; expected at least one")
    if not _all_finite(system.positions):
        first = int(np.argmin(np.isfinite(system.positions).all(axis=1)))
        raise StructureError(f"position of atom {first} is {system.positions[first]}; expected finite numbers")
    if not _all_finite(system.cell):
        raise StructureError(f"cell is {system.cell.tolist()}; expected finite numbers")


def _all_finite(values: Floats) -> bool:
    return b"\0" not in np.isfinite(values).tobytes()  # faster than all() for few atoms


def check_elements(numbers: Integers, elements: Sequence[int] | None, max_z: int) -> None:
    """Refuse atomic numbers that a model was not trained on; without such a list, those from `max_z` on.

    Raises
    ------
    StructureError
        The system has such elements; the message names them.
    """
    known = (numbers >= 0) & (numbers < max_z) if elements is None else np.isin(numbers, elements)
    if not known.all():
        names = dict(enumerate(chemical_symbols))
        strange = ", ".join(sorted({names.get(z, f"of number {z}") for z in numbers[~known].tolist()}))
        if elements is None:
            raise StructureError(f"element {strange} is none of the model's, whose max_z is {max_z}")
        trained = ", ".join(chemical_symbols[z] for z in elements)
        raise StructureError(f"the model was not trained on {strange}; it knows {trained}: use another model")


def refuse_coincident(closest: Closest) -> None:
    """Refuse a system in which two atoms have the same position.

    Raises
    ------
    StructureError
        The closest atoms are these two; the message names them.
    """
    if closest.distance < MIN_DISTANCE:
        raise StructureError(
            f"atoms {closest.first} and {closest.second} are {closest.distance:.2g} Å apart, at one position; "
            "move or remove one"
        )
