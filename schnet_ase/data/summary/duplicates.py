"""Find structures that a file contains more than once, and check whether their labels agree."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from schnet_ase.data.summary.fingerprints import wraps
from schnet_ase.data.summary.flat import Flat
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.geometry.system import Geometry

NEAR = 2e-3
"""Å; distances that differ by less are equal up to the rounding of a file with three decimals."""
ENERGY_TOLERANCE = 1e-3
"""eV; two energies of one structure may differ by this much."""
FORCE_TOLERANCE = 1e-2
"""eV/Å; components of two forces on one atom may differ by this much."""


class Duplicates(NamedTuple):
    """Pairs of frames, of the F: a structure and a later frame that repeats it."""

    exact: Integers
    """(K, 2) equal to the last bit, in periodic frames including the cell."""
    near: Integers
    """(L, 2) equal within `NEAR`; molecules may also be rotated, moved, mirrored or renumbered."""
    contradictory: Integers
    """(M, 2) pairs of either kind whose labels differ by more than so small a displacement explains."""
    energy_difference: Floats
    """(M,) eV; NaN where an energy is missing."""
    force_difference: Floats
    """(M,) eV/Å, largest difference of a component; NaN where forces are not compared."""


def duplicates(flat: Flat, prints: Floats, kind: Integers) -> Duplicates:
    """Find structures that repeat others.

    Parameters
    ----------
    flat
        The frames.
    prints
        (F, D) their `fingerprints`.
    kind
        (F,) number of the kind of each frame; only frames of one kind are compared.
    """
    exact, unique = _exact(flat)
    near = _near(flat, prints, kind, unique)
    energies, forces = _differences(flat, exact, near)
    allowed = np.concatenate([np.full(len(exact), ENERGY_TOLERANCE), _explained(flat, near)])
    both = np.concatenate([exact, near])
    # NaN compares false, so that a missing label contradicts nothing.
    wrong = (energies > allowed + 1e-7 * np.nan_to_num(np.abs(flat.energy[both[:, 0]]))) | (forces > FORCE_TOLERANCE)
    return Duplicates(exact, near, both[wrong], energies[wrong], forces[wrong])


def _exact(flat: Flat) -> tuple[Integers, Integers]:
    """Return the pairs of equal frames, and the first frame of each structure."""
    first: dict[bytes, int] = {}
    pairs = []
    for f in range(len(flat.index)):
        numbers, positions, cell, pbc = flat.geometry(f)
        box = cell.tobytes() if pbc.any() else b""
        before = first.setdefault(numbers.tobytes() + (positions + 0.0).tobytes() + pbc.tobytes() + box, f)
        if before != f:
            pairs.append((before, f))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array(list(first.values()), dtype=np.int64)


def _near(flat: Flat, prints: Floats, kind: Integers, unique: Integers) -> Integers:
    """Return each structure with its nearest other one, if that is near enough."""
    if len(unique) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    points = np.concatenate([prints[unique], 1e4 * kind[unique, None]], axis=1)  # separates frames of different kinds
    found = cKDTree(points).query(points, k=min(4, len(unique)), distance_upper_bound=NEAR)[1]
    pairs, periodic = set[tuple[int, int]](), wraps(flat)
    for place, others in enumerate(found):
        for other in others[others < len(unique)]:
            a, b = sorted((int(unique[place]), int(unique[other])))
            if a != b and ((a, b) in pairs or _same(flat, a, b, bool(periodic[a]))):
                pairs.add((a, b))
                break
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


def _same(flat: Flat, a: int, b: int, periodic: bool) -> bool:
    """Return whether two frames of one kind are the same structure up to rounding."""
    one, other = flat.geometry(a), flat.geometry(b)
    if periodic:
        if not np.array_equal(one.numbers, other.numbers) or np.abs(one.cell - other.cell).max() > NEAR:
            return False
        moved = np.linalg.solve(one.cell.T, (one.positions - other.positions).T).T
        moved -= np.where(one.pbc, np.round(moved), 0.0)
        return bool(np.abs(moved @ one.cell).max() < NEAR)
    return bool(np.abs(_lengths(one) - _lengths(other)).max() < NEAR)


def _lengths(geometry: Geometry) -> Floats:
    """Return all distances of a molecule in ascending order."""
    vectors = geometry.positions[:, None] - geometry.positions
    return np.sort(np.sqrt(np.einsum("ijk,ijk->ij", vectors, vectors)), axis=None)


def _differences(flat: Flat, exact: Integers, near: Integers) -> tuple[Floats, Floats]:
    """Return the differences of the labels of pairs; those of forces only if the atoms correspond."""
    both = np.concatenate([exact, near])
    energies = np.abs(flat.energy[both[:, 0]] - flat.energy[both[:, 1]])
    forces = np.full(len(both), np.nan)
    for pair, (a, b) in enumerate(exact):
        one, other = (flat.forces[flat.start[f] : flat.start[f + 1]] for f in (a, b))
        forces[pair] = np.abs(one - other).max()
    return energies, forces


def _explained(flat: Flat, pairs: Integers) -> Floats:
    """Return how much displacements of `NEAR` change an energy, eV, by its forces or else by 2 eV/Å on each atom."""
    norms = flat.sums(flat.force_norms)
    norms = np.where(np.isfinite(norms), norms, 2.0 * flat.n_atoms)
    return np.asarray(ENERGY_TOLERANCE + NEAR * norms[pairs[:, 0]])
