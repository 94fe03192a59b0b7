"""The charge and the unpaired electrons that a structure states."""

from __future__ import annotations

import numpy as np
from ase import Atoms

CHARGES = ("charge", "total_charge")
MULTIPLICITIES = ("multiplicity", "spin_multiplicity")


def stated_charge(atoms: Atoms) -> int:
    """Return the charge in ``atoms.info``, or else the sum of the initial charges, rounded; e."""
    for key in CHARGES:
        if (value := _number(atoms, key)) is not None:
            return value
    return round(float(atoms.get_initial_charges().sum()))


def stated_unpaired(atoms: Atoms) -> int:
    """Return the number of unpaired electrons in ``atoms.info``, as such or by a multiplicity, or else the size of the
    sum of the initial magnetic moments, rounded."""
    if (value := _number(atoms, "unpaired_electrons")) is not None:
        return value
    for key in MULTIPLICITIES:
        if (value := _number(atoms, key)) is not None:
            return value - 1
    return round(float(np.linalg.norm(np.atleast_1d(atoms.get_initial_magnetic_moments().sum(axis=0)))))


def _number(atoms: Atoms, key: str) -> int | None:
    """Return a whole number of ``atoms.info``; None if there is none under this key."""
    try:
        return round(float(atoms.info[key]))
    except (KeyError, TypeError, ValueError):
        return None
