"""Checks of a monitor's arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian
from numpy.typing import NDArray

from schnet_ase.errors import MonitorError

NEAR = 0.5
"""Share of the threshold from which a check goes back: a deviation may be above the threshold for a few steps only."""
FAILED_ABOVE = 5.0
"""Default ratio hi/lo of the two thresholds, in a monitor and in learning."""


def check_counts(**given: tuple[Any, int]) -> None:
    """Refuse a value that is not an integer, or is below the minimum given with it."""
    for name, (value, least) in given.items():
        if not isinstance(value, (int, np.integer)) or value < least:
            raise MonitorError(f"{name} is {value!r}; expected an integer of at least {least}")


def thresholds_of(threshold: Any, ensemble: Any) -> tuple[float, float]:
    """Return the threshold lo, and hi, above which a frame has failed.

    Raises
    ------
    MonitorError
        The argument is not valid, or ``"auto"`` is given with an ensemble that is not calibrated.
    """
    if isinstance(threshold, str):
        if threshold != "auto":
            raise MonitorError(f"threshold is {threshold!r}; expected 'auto', a number in eV/Å or a pair (lo, hi)")
        if ensemble.calibration is None:
            raise MonitorError(
                "threshold='auto' needs a calibrated ensemble; give threshold in eV/Å, or run schnet-ase calibrate"
            )
        lo = ensemble.calibration.threshold()
        return lo, FAILED_ABOVE * lo
    pair = threshold if isinstance(threshold, (tuple, list)) else (threshold, math.inf)
    try:
        lo, hi = (float(value) for value in pair)
    except (TypeError, ValueError):
        lo = hi = math.nan
    if not 0.0 < lo < hi or not math.isfinite(lo):
        raise MonitorError(f"threshold is {threshold!r}; expected 0 < lo < hi in eV/Å, one number or a pair")
    return lo, hi


def watched_atoms(atoms: Atoms, indices: Sequence[int] | None) -> NDArray[np.int64]:
    """Return the indices of the atoms to watch, without those that constraints fix.

    Raises
    ------
    MonitorError
        The argument is not valid, or every atom to watch is fixed.
    """
    given = np.arange(len(atoms)) if indices is None else np.asarray(indices)
    if given.dtype == bool and given.shape == (len(atoms),):
        given = np.flatnonzero(given)
    if given.dtype.kind not in "iu" or given.ndim != 1 or not len(given) or not (given >= 0).all():
        raise MonitorError(f"indices is {indices!r}; expected at least one atom, counted from 0, or a mask")
    if given.max() >= len(atoms):
        raise MonitorError(f"indices has atom {given.max()}, but there are {len(atoms)} atoms, counted from 0")
    free = np.ones(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms) or (isinstance(constraint, FixCartesian) and constraint.mask.all()):
            free[constraint.index] = False
    watched = np.unique(given[free[given]])
    if not len(watched):
        raise MonitorError("every atom to watch is fixed; give other indices")
    return watched.astype(np.int64)
