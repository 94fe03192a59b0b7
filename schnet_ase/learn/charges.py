"""The total charge and the number of unpaired electrons that a frame states with its atoms."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from schnet_ase.errors import LearnError

NEARLY_WHOLE = 1e-6
"""e: a sum of charges or moments this near to a whole number counts as that number, up to the digits of a file."""
GRID = 2.0**-30
"""e: sums of multiples of it are exact in any order."""


def nearly_whole(total: float) -> bool:
    """Return whether a sum is a whole number up to rounding."""
    return bool(abs(total - round(total)) <= NEARLY_WHOLE)


def restore_whole_charge(atoms: Atoms) -> None:
    """Make initial charges that nearly sum to a whole number sum to it exactly.

    Three charges of 1/3 are 0.33333333 each in an extxyz file, and an electronic structure code with a charge of
    0.99999999 may count the electrons of another state. The largest charge gets the difference.
    """
    if "initial_charges" not in atoms.arrays:
        return
    charges = atoms.get_initial_charges()
    total = float(charges.sum())
    if nearly_whole(total):
        charges = GRID * np.round(charges / GRID)
        charges[np.abs(charges).argmax()] += round(total) - charges.sum()
        atoms.set_initial_charges(charges)


def total_charge(atoms: Atoms, stated: int | None) -> int:
    """Return the total charge, e: as stated, or else the sum of the initial charges.

    Raises
    ------
    LearnError
        The sum is not a whole number, or differs from the stated charge.
    """
    charges = atoms.get_initial_charges()
    if not charges.any():
        return stated or 0
    return _agreed(float(charges.sum()), stated, "charge", "initial charges")


def unpaired_electrons(atoms: Atoms, stated: int | None) -> int:
    """Return the number of unpaired electrons: as stated, or else the size of the sum of the initial magnetic moments.

    Raises
    ------
    LearnError
        The sum is not a whole number, or differs from the stated number, or the moments cancel each other.
    """
    moments = atoms.get_initial_magnetic_moments()
    if not moments.any():
        return stated or 0
    total = abs(float(moments.sum()))
    if moments.ndim == 2 or total <= NEARLY_WHOLE:
        raise LearnError(
            "the initial magnetic moments are vectors or cancel each other, which is not calculated here; remove them, "
            "or name a function of your own as reference.calculator"
        )
    return _agreed(total, stated, "spin", "initial magnetic moments")


def _agreed(total: float, stated: int | None, name: str, what: str) -> int:
    if not nearly_whole(total):
        raise LearnError(f"the {what} of the frame sum to {total:.6g}; expected a whole number, correct them")
    if stated is not None and stated != round(total):
        raise LearnError(
            f"reference.arguments has {name} = {stated}, but the {what} of the frame sum to {round(total)}; remove one "
            "of the two"
        )
    return round(total)
