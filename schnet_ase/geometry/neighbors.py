"""Neighbour lists of molecules and crystals with any periodicity, with a skin so that they can be reused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matscipy.neighbours import neighbour_list as matscipy_neighbour_list
from numpy.typing import NDArray

from schnet_ase.errors import StructureError
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.geometry.system import Geometry

# Up to this size, all pairs of a molecule are cheaper than a search for near ones, and the list stays valid forever.
ALL_PAIRS_MAX_ATOMS = 64


class Neighbors(NamedTuple):
    """Full neighbour list sorted by `i`: pair k goes from atom ``i[k]`` to the image ``S[k]`` of atom ``j[k]``.

    The vector of pair k is ``positions[j[k]] - positions[i[k]] + S[k] @ cell``; the list holds both directions of a
    pair.
    """

    i: Integers
    """(E,) first atom."""
    j: Integers
    """(E,) second atom."""
    S: Integers
    """(E, 3) lattice translations of the second atom."""


class HalfNeighbors(NamedTuple):
    """Neighbour list with each pair once, the form that the network takes."""

    first: Integers
    second: Integers
    shifts: Integers


def all_pairs(n_atoms: int) -> Neighbors:
    """Return every ordered pair of `n_atoms` atoms without periodicity."""
    i, j = np.nonzero(~np.eye(n_atoms, dtype=bool))
    return Neighbors(i, j, np.zeros((len(i), 3), dtype=np.int64))


def neighbor_list(positions: Floats, cell: Floats, pbc: NDArray[np.bool_], cutoff: float | None) -> Neighbors:
    """Find all pairs nearer than `cutoff`, including images; for a small molecule simply all pairs.

    Parameters
    ----------
    positions
        (N, 3) Å. Atoms may lie outside the cell.
    cell
        (3, 3) lattice vectors as rows, Å. Rows of directions that are not periodic are ignored.
    pbc
        (3,) which directions are periodic.
    cutoff
        Å; None for every pair.

    Returns
    -------
    Neighbors
        The list sorted by `i`, never truncated. Molecules of up to 64 atoms get all pairs whatever the cutoff; beyond
        it the envelope is zero.

    Raises
    ------
    StructureError
        The system is periodic and there is no cutoff, or the periodic directions do not span a volume.
    """
    found, wraps = _near(positions, cell, pbc, cutoff)
    order = np.argsort(found.i, kind="stable")
    return _unwrapped(Neighbors(found.i[order], found.j[order], found.S[order]), wraps)


def half_neighbor_list(positions: Floats, cell: Floats, pbc: NDArray[np.bool_], cutoff: float | None) -> HalfNeighbors:
    """Find the same pairs as `neighbor_list`, each once; this is faster than taking half of that list."""
    found, wraps = _near(positions, cell, pbc, cutoff)
    # Wrapping does not change the half that a pair is in, because an atom and its own images wrap alike.
    i, j, S = half(found)
    order = np.argsort(i, kind="stable")
    return HalfNeighbors(*_unwrapped(Neighbors(i[order], j[order], S[order]), wraps))


def pair_vectors(geometry: Geometry, pairs: HalfNeighbors) -> Floats:
    """(P, 3) vectors from the first to the second atom of each pair, Å."""
    vectors: Floats = geometry.positions[pairs.second] - geometry.positions[pairs.first]
    return vectors + pairs.shifts @ geometry.cell if geometry.pbc.any() else vectors


def lone_atoms(geometry: Geometry, pairs: HalfNeighbors, cutoff: float | None) -> Integers:
    """Return the atoms, if there are several, without another atom or image within `cutoff`; None: no atom is lone.

    `pairs` holds every pair that is nearer, and may hold others.
    """
    n_atoms = len(geometry.numbers)
    if cutoff is None or n_atoms == 1:
        return np.zeros(0, dtype=np.int64)
    i, j, S = pairs
    vectors = geometry.positions[j] - geometry.positions[i] + S @ geometry.cell
    near = np.einsum("pk,pk->p", vectors, vectors) < cutoff**2
    alone = np.ones(n_atoms, dtype=bool)
    alone[i[near]] = alone[j[near]] = False
    return np.flatnonzero(alone)


def half(neighbors: Neighbors) -> HalfNeighbors:
    """Keep each pair once: ``i < j``, and for an atom and its own images those in the positive half space."""
    i, j, S = neighbors
    keep = i < j
    own = np.flatnonzero(i == j)
    x, y, z = S[own].T
    keep[own] = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    return HalfNeighbors(i[keep], j[keep], S[keep])


def _near(
    positions: Floats, cell: Floats, pbc: NDArray[np.bool_], cutoff: float | None
) -> tuple[Neighbors, Integers | None]:
    """Return the list of the atoms wrapped into the cell, and the (N, 3) cells that each was moved by; None if none
    was."""
    if has_all_pairs(len(positions), pbc, cutoff):
        return all_pairs(len(positions)), None
    assert cutoff is not None
    fractional, box, wraps = in_box(positions, cell, pbc, cutoff)
    found = matscipy_neighbour_list("ijS", positions=fractional @ box, cell=box, pbc=pbc, cutoff=cutoff)
    return Neighbors(*found), wraps if wraps.any() else None


def has_all_pairs(n_atoms: int, pbc: NDArray[np.bool_], cutoff: float | None) -> bool:
    """Return whether the list is simply that of all pairs.

    Raises
    ------
    StructureError
        The system is periodic and there is no cutoff.
    """
    if cutoff is None and pbc.any():
        raise StructureError(
            "a model without an envelope counts every pair and cannot take a periodic system; "
            'use a model with envelope="cosine" or "polynomial", or set atoms.pbc = False'
        )
    return cutoff is None or (n_atoms <= ALL_PAIRS_MAX_ATOMS and not pbc.any())


class InBox(NamedTuple):
    """Atoms in the box in which pairs are searched."""

    fractional: Floats
    """(N, 3) coordinates from 0 to 1."""
    box: Floats
    """(3, 3) the cell, widened in directions that are not periodic to hold all atoms."""
    wraps: Integers
    """(N, 3) number of cells by which each atom was moved."""


def in_box(positions: Floats, cell: Floats, pbc: NDArray[np.bool_], cutoff: float) -> InBox:
    """Wrap atoms into the cell, so that one search serves every case.

    Raises
    ------
    StructureError
        The periodic directions do not span a volume.
    """
    if not pbc.any():
        positions = _closed_up(positions, 2.0 * cutoff)
    box = _box(positions, cell, pbc, cutoff)
    fractional = np.linalg.solve(box.T, (positions - _corner(positions, box, pbc)).T).T
    wraps = np.where(pbc, np.floor(fractional), 0.0)
    return InBox(np.asarray(fractional - wraps, dtype=np.float64), box, wraps.astype(np.int64))


def _closed_up(positions: Floats, widest: float) -> Floats:
    """Close every gap between atoms along x, y or z that is wider than `widest` to that width.

    Nearer pairs keep their distance, and no other pair becomes near, but the box for the search does not grow with an
    atom that has flown away.
    """
    order = np.argsort(positions, axis=0)
    gaps = np.diff(np.take_along_axis(positions, order, axis=0), axis=0)
    closed = positions.copy()
    moves = np.cumsum(np.maximum(gaps - widest, 0.0), axis=0)
    np.put_along_axis(closed, order[1:], np.take_along_axis(positions, order[1:], axis=0) - moves, axis=0)
    return closed


def _unwrapped(found: Neighbors, wraps: Integers | None) -> Neighbors:
    i, j, S = (array.astype(np.int64) for array in found)
    return Neighbors(i, j, S if wraps is None else S + wraps[i] - wraps[j])


class NeighborCache:
    """A neighbour list with a skin, rebuilt only when it may have missed a pair.

    Parameters
    ----------
    cutoff
        Å; None for every pair.
    skin
        Å added to the cutoff; the list is rebuilt when an atom has moved by more than half of it, or when the cell, the
        periodicity or the numbers have changed.
    search
        Function that makes a list; see `half_neighbor_list`.

    Attributes
    ----------
    builds : int
        Number of lists made so far.
    """

    def __init__(
        self,
        cutoff: float | None,
        skin: float,
        search: Callable[[Floats, Floats, NDArray[np.bool_], float | None], HalfNeighbors] = half_neighbor_list,
    ) -> None:
        if not 0.0 <= skin < math.inf:
            raise ValueError(f"skin is {skin} Å; expected a finite number, zero or more")
        self.cutoff = cutoff
        self.skin = skin
        self.builds = 0
        self._search = search
        self._made_from: Geometry | None = None
        self._list: HalfNeighbors | None = None

    def get(self, geometry: Geometry) -> HalfNeighbors:
        """Return the half list for the atoms of `geometry`: the stored one if it is still valid, otherwise a new
        one."""
        if self._list is None or not self._holds(geometry):
            cutoff = None if self.cutoff is None else self.cutoff + self.skin
            made = self._search(geometry.positions, geometry.cell, geometry.pbc, cutoff)
            self._list = None  # an interruption must not leave a list of another geometry
            self._made_from = geometry.copy()
            self._list = made
            self.builds += 1
        return self._list

    def forget(self) -> None:
        """Discard the stored list."""
        self._list = None

    def _holds(self, geometry: Geometry) -> bool:
        old = self._made_from
        if old is None or old.numbers.tobytes() != geometry.numbers.tobytes():
            return False
        if old.pbc.tobytes() != geometry.pbc.tobytes():
            return False
        if has_all_pairs(len(geometry.numbers), geometry.pbc, self.cutoff):
            return True
        if old.cell.tobytes() != geometry.cell.tobytes() and geometry.pbc.any():
            return False
        moved = geometry.positions - old.positions
        farthest = np.maximum.reduce(np.einsum("ij,ij->i", moved, moved), initial=0.0)
        return bool(farthest <= (0.5 * self.skin) ** 2)


def _box(positions: Floats, cell: Floats, pbc: NDArray[np.bool_], cutoff: float) -> Floats:
    """Return the cell with non-periodic directions orthogonal to the others and wide enough for the atoms."""
    box = np.array(cell, dtype=float)
    if not pbc.all():
        # The null space of the periodic vectors: the right singular vectors beyond their number.
        normals = np.linalg.svd(np.vstack([box[pbc], np.zeros((1, 3))]))[2][pbc.sum() :]
        extent = np.ptp(positions @ normals.T, axis=0)
        box[~pbc] = normals * (extent + 2.0 * cutoff)[:, None]
    volume = abs(np.linalg.det(box))
    if not volume > 1e-9 * np.prod(np.linalg.norm(box, axis=1)):
        raise StructureError(f"the periodic cell vectors do not span a volume: {box[pbc].tolist()}; set atoms.cell")
    return box


def _corner(positions: Floats, box: Floats, pbc: NDArray[np.bool_]) -> Floats:
    """Return an origin that leaves half of the margin free below the atoms in non-periodic directions."""
    fractional = np.linalg.solve(box.T, positions.T).T
    middle = 0.5 * (fractional.min(axis=0) + fractional.max(axis=0))
    return np.where(pbc, 0.0, middle - 0.5) @ box
