"""Energies that compare: what is left of them once each element has its part, and what is far from the rest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from schnet_ase.data.summary.flat import Flat
from schnet_ase.geometry.arrays import Floats, Integers

LIMIT = 8.0
"""Robust standard deviations, 1.4826 times the median absolute deviation, beyond which a frame is an outlier."""
GROUP = 20
"""Frames of one composition that are enough to be compared with one another alone."""
POOLED = 2.0
"""How many times farther other frames may be: a fit to compositions leaves more of some than of others."""
FEWEST = 8
"""Frames below which nothing is an outlier."""


class Compositions(NamedTuple):
    """Which atoms each of F frames has, whatever their order."""

    elements: Integers
    """(E,) atomic numbers, ascending."""
    counts: Integers
    """(C, E) atoms of each element in each of the compositions that occur."""
    of: Integers
    """(F,) which composition a frame has."""
    frames: Integers
    """(C,) how many frames have it."""


def compositions(flat: Flat) -> Compositions:
    """Count the elements of each frame."""
    elements, kind = np.unique(flat.numbers, return_inverse=True)
    n_frames, n_kinds = len(flat.index), len(elements)
    counts = np.bincount(flat.frame * n_kinds + kind, minlength=n_frames * n_kinds).reshape(n_frames, n_kinds)
    unique, of, frames = np.unique(counts, axis=0, return_inverse=True, return_counts=True)
    return Compositions(elements, unique, of.reshape(-1), frames)


def composition_residual(flat: Flat, made_of: Compositions) -> Floats:
    """Energies per atom, less what the elements of each frame explain.

    Least absolute deviations of ``E/N = Σ_z (n_z/N) e_z``, by least squares with weights that are adapted repeatedly
    (Schlossmacher, J. Am. Stat. Assoc. 68, 857 (1973)): a single energy that is wrong does not move the others. Free
    atoms take no part, since no bond is part of their energy.

    Returns
    -------
    Floats
        (F,) eV per atom; NaN for free atoms, where there is no energy, and where so few frames have one that the fit
        leaves nothing.
    """
    n_atoms = flat.n_atoms
    fitted = np.isfinite(flat.energy) & ~flat.free_atoms
    residual = np.full(len(flat.index), np.nan)
    if fitted.sum() <= min(len(np.unique(made_of.of[fitted])), len(made_of.elements)):
        return residual
    per_atom = flat.energy[fitted] / n_atoms[fitted]
    per_atom = per_atom - np.median(per_atom)  # fractions sum to one, so that a constant is no loss
    fractions = made_of.counts[made_of.of[fitted]] / n_atoms[fitted, None]
    left, weights = per_atom, np.ones(len(per_atom))
    for _ in range(30):
        solution = np.linalg.lstsq(fractions * weights[:, None], per_atom * weights, rcond=None)[0]
        left = per_atom - fractions @ solution
        weights = 1.0 / np.sqrt(np.maximum(np.abs(left), 1e-4))
    residual[fitted] = left
    return residual


def robust_deviation(values: Floats, made_of: Compositions, floor: float) -> Floats:
    """How far each value is from the median, in robust standard deviations.

    Frames of a composition of which there are many are compared with one another, all others together: two molecules,
    or two isomers' formulas, have energies apart without being wrong.

    Parameters
    ----------
    values
        (F,) with NaN where there is none.
    made_of
        Of the same frames.
    floor
        Smallest standard deviation that is believed: frames may be copies of one.

    Returns
    -------
    Floats
        (F,) signed; zero where there are too few to say, or no value.
    """
    deviation = np.zeros(len(values))
    known = np.flatnonzero(np.isfinite(values))
    many = np.bincount(made_of.of[known], minlength=len(made_of.frames)) >= GROUP
    label = np.where(many[made_of.of[known]], made_of.of[known], -1)
    order = np.argsort(label, kind="stable")
    for group in np.split(known[order], np.flatnonzero(np.diff(label[order])) + 1):
        if len(group) >= FEWEST:
            away = values[group] - np.median(values[group])
            deviation[group] = away / max(1.4826 * float(np.median(np.abs(away))), floor)
            if made_of.frames[made_of.of[group[0]]] < GROUP:
                deviation[group] /= POOLED
    return deviation
