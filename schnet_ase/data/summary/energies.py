"""Comparable energies: the part that the composition does not explain, and its outliers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from schnet_ase.data.summary.flat import Flat
from schnet_ase.geometry.arrays import Floats, Integers

LIMIT = 8.0
"""Robust standard deviations, 1.4826 times the median absolute deviation, beyond which a frame is an outlier."""
GROUP = 20
"""Number of frames of one composition from which on they are compared only with one another."""
POOLED = 2.0
"""Factor by which other frames may be farther off, because the fit is better for some compositions than for others."""
FEWEST = 8
"""Number of frames below which there are no outliers."""


class Compositions(NamedTuple):
    """The compositions of F frames."""

    elements: Integers
    """(E,) atomic numbers, ascending."""
    counts: Integers
    """(C, E) number of atoms of each element in each composition."""
    of: Integers
    """(F,) index of the composition of each frame."""
    frames: Integers
    """(C,) number of frames of each composition."""


def compositions(flat: Flat) -> Compositions:
    """Count the elements of each frame."""
    elements, kind = np.unique(flat.numbers, return_inverse=True)
    n_frames, n_kinds = len(flat.index), len(elements)
    counts = np.bincount(flat.frame * n_kinds + kind, minlength=n_frames * n_kinds).reshape(n_frames, n_kinds)
    unique, of, frames = np.unique(counts, axis=0, return_inverse=True, return_counts=True)
    return Compositions(elements, unique, of.reshape(-1), frames)


def composition_residual(flat: Flat, made_of: Compositions) -> Floats:
    """Return energies per atom, less the part that the elements of each frame explain.

    Least absolute deviations of ``E/N = Σ_z (n_z/N) e_z``, by least squares with weights that are adapted repeatedly
    (Schlossmacher, J. Am. Stat. Assoc. 68, 857 (1973)), so that a single wrong energy does not shift the others. Free
    atoms are left out, because their energy contains no bond.

    Returns
    -------
    Floats
        (F,) eV per atom; NaN for free atoms, for frames without an energy, and if so few frames have one that the fit
        is exact.
    """
    n_atoms = flat.n_atoms
    fitted = np.isfinite(flat.energy) & ~flat.free_atoms
    residual = np.full(len(flat.index), np.nan)
    if fitted.sum() <= min(len(np.unique(made_of.of[fitted])), len(made_of.elements)):
        return residual
    per_atom = flat.energy[fitted] / n_atoms[fitted]
    per_atom = per_atom - np.median(per_atom)  # fractions sum to one, so that the fit contains a constant
    fractions = made_of.counts[made_of.of[fitted]] / n_atoms[fitted, None]
    left, weights = per_atom, np.ones(len(per_atom))
    for _ in range(30):
        solution = np.linalg.lstsq(fractions * weights[:, None], per_atom * weights, rcond=None)[0]
        left = per_atom - fractions @ solution
        weights = 1.0 / np.sqrt(np.maximum(np.abs(left), 1e-4))
    residual[fitted] = left
    return residual


def robust_deviation(values: Floats, made_of: Compositions, floor: float) -> Floats:
    """Return how far each value is from the median, in robust standard deviations.

    Frames of a frequent composition are compared with one another, all others together, because the energies of two
    molecules may correctly be far apart.

    Parameters
    ----------
    values
        (F,), NaN where there is no value.
    made_of
        Compositions of the same frames.
    floor
        Smallest standard deviation that counts, because frames may be copies of one frame.

    Returns
    -------
    Floats
        (F,) signed; zero where there are too few frames, or no value.
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
