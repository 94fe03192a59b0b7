"""Structures that are in a file more than once, and whether their labels agree."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from schnet_ase.data.summary.fingerprints import wraps
from schnet_ase.data.summary.flat import Flat
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.geometry.system import Geometry

NEAR = 2e-3
"""Å; distances that differ by less are the same but for rounding in a file with three decimals."""
ENERGY_TOLERANCE = 1e-3
"""eV, by which two energies of one structure may differ."""
FORCE_TOLERANCE = 1e-2
"""eV/Å, likewise a component of a force."""


class Duplicates(NamedTuple):
    """Pairs of the F frames, each of a structure and of a later frame that repeats it."""

    exact: Integers
    """(K, 2) the same to the last bit, where periodic the cell too."""
    near: Integers
    """(L, 2) the same to `NEAR`; of molecules, also turned, moved, mirrored or renumbered."""
    contradictory: Integers
    """(M, 2) those of both whose labels differ by more than a displacement so small explains."""
    energy_difference: Floats
    """(M,) eV; NaN where an energy is missing."""
    force_difference: Floats
    """(M,) eV/Å, the largest of the differing components; NaN where not compared."""


def duplicates(flat: Flat, prints: Floats, kind: Integers) -> Duplicates:
    """Find structures that repeat others.

    Parameters
    ----------
    flat
        The frames.
    prints
        (F, D) their `fingerprints`.
    kind
        (F,) by which of the others they may be repeated.
    """
    exact, unique = _exact(flat)
    near = _near(flat, prints, kind, unique)
    energies, forces = _differences(flat, exact, near)
    allowed = np.concatenate([np.full(len(exact), ENERGY_TOLERANCE), _explained(flat, near)])
    both = np.concatenate([exact, near])
    # NaN compares false: a label that is missing contradicts none.
    wrong = (energies > allowed + 1e-7 * np.nan_to_num(np.abs(flat.energy[both[:, 0]]))) | (forces > FORCE_TOLERANCE)
    return Duplicates(exact, near, both[wrong], energies[wrong], forces[wrong])


def _exact(flat: Flat) -> tuple[Integers, Integers]:
    """Pairs of equal frames, and the first frame of each structure."""
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
    """Of each structure the nearest other one, where it is near enough."""
    if len(unique) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    points = np.concatenate([prints[unique], 1e4 * kind[unique, None]], axis=1)  # other kinds are out of reach
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
    """Whether two frames of one kind are the same structure but for rounding."""
    one, other = flat.geometry(a), flat.geometry(b)
    if periodic:
        if not np.array_equal(one.numbers, other.numbers) or np.abs(one.cell - other.cell).max() > NEAR:
            return False
        moved = np.linalg.solve(one.cell.T, (one.positions - other.positions).T).T
        moved -= np.where(one.pbc, np.round(moved), 0.0)
        return bool(np.abs(moved @ one.cell).max() < NEAR)
    return bool(np.abs(_lengths(one) - _lengths(other)).max() < NEAR)


def _lengths(geometry: Geometry) -> Floats:
    """All distances of a molecule in ascending order."""
    vectors = geometry.positions[:, None] - geometry.positions
    return np.sort(np.sqrt(np.einsum("ijk,ijk->ij", vectors, vectors)), axis=None)


def _differences(flat: Flat, exact: Integers, near: Integers) -> tuple[Floats, Floats]:
    """How far labels of pairs are apart; forces only where atoms are the same ones."""
    both = np.concatenate([exact, near])
    energies = np.abs(flat.energy[both[:, 0]] - flat.energy[both[:, 1]])
    forces = np.full(len(both), np.nan)
    for pair, (a, b) in enumerate(exact):
        one, other = (flat.forces[flat.start[f] : flat.start[f + 1]] for f in (a, b))
        forces[pair] = np.abs(one - other).max()
    return energies, forces


def _explained(flat: Flat, pairs: Integers) -> Floats:
    """How far moves of `NEAR` take an energy, eV: by the forces or, without them, by 2 eV/Å on each atom."""
    norms = flat.sums(flat.force_norms)
    norms = np.where(np.isfinite(norms), norms, 2.0 * flat.n_atoms)
    return np.asarray(ENERGY_TOLERANCE + NEAR * norms[pairs[:, 0]])
