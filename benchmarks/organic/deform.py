"""Geometries that dynamics seldom visit, made of one that they did. None: this molecule has no such geometry."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from .geometry import Start

NEAREST = 0.7
"""Å between any two atoms of a geometry."""
Deformation = Callable[[Start, np.ndarray, np.random.Generator], np.ndarray | None]
"""Molecule and (N, 3) positions in Å to other positions."""


def strained(at: Start, positions: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """An affine strain of some per cent."""
    strain = rng.normal(0.0, 0.04, (3, 3))
    return positions + (positions - positions.mean(0)) @ (strain + strain.T) / 2


def compressed(at: Start, positions: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """All lengths 3 to 12 % shorter."""
    return positions.mean(0) + (positions - positions.mean(0)) * rng.uniform(0.88, 0.97)


def rattled(at: Start, positions: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Each atom moved by itself."""
    return positions + rng.normal(0.0, rng.uniform(0.02, 0.08), positions.shape)


def pulled(at: Start, positions: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """A bond that is in no ring 10 to 100 % longer; one between two heavy atoms rather than one of hydrogen."""
    bridges = _bridges(at)
    heavy = [bridge for bridge in bridges if (at.numbers[list(bridge[0])] > 1).all()]
    chosen = heavy if heavy and rng.random() < 0.6 else bridges
    if not chosen:
        return None
    (i, j), moving = chosen[int(rng.integers(len(chosen)))]
    moved = positions.copy()
    moved[moving] += (positions[j] - positions[i]) * rng.uniform(0.1, 1.0)
    return moved


def turned(at: Start, positions: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """One part turned about a bond by any angle."""
    inner = [((i, j), moving) for (i, j), moving in _bridges(at) if 1 < moving.sum() < _size(at, i) - 1]
    for _ in range(5 if inner else 0):
        (i, j), moving = inner[int(rng.integers(len(inner)))]
        axis = positions[j] - positions[i]
        turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * rng.uniform(0.3, 2 * np.pi - 0.3))
        moved = positions.copy()
        moved[moving] = positions[i] + turn.apply(positions[moving] - positions[i])
        if pdist(moved).min() > NEAREST:
            return moved
    return None


def apart(at: Start, positions: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """The first molecule nearer to the others or farther from them, rigid."""
    first = at.parts == 0
    if first.all():
        return None
    direction = positions[first].mean(0) - positions[~first].mean(0)
    direction /= np.linalg.norm(direction)
    for _ in range(5):
        moved = positions.copy()
        moved[first] += direction * rng.choice([rng.uniform(-1.0, 0.5), rng.uniform(0.5, 4.0)])
        if pdist(moved).min() > NEAREST:
            return moved
    return None


def _size(at: Start, atom: int) -> int:
    return int((at.parts == at.parts[atom]).sum())


def _bridges(at: Start) -> list[tuple[tuple[int, int], np.ndarray]]:
    """Bonds (i, j) in no ring, and (N,) whether an atom is on the side of j, which has no more atoms than the other."""
    found = []
    n = len(at.numbers)
    for k, (i, j) in enumerate(at.bonds.tolist()):
        rest = np.delete(at.bonds, k, axis=0)
        graph = coo_matrix((np.ones(len(rest)), (rest[:, 0], rest[:, 1])), shape=(n, n))
        _, side = connected_components(graph, directed=False)
        if side[i] != side[j]:
            if (side == side[j]).sum() > (side == side[i]).sum():
                i, j = j, i
            found.append(((i, j), side == side[j]))
    return found
