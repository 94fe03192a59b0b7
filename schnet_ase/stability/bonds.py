"""Bonds of a structure, and a criterion for a broken bond."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import NDArray

from schnet_ase.geometry.arrays import Floats, Integers

STRETCH = 1.25
"""Atoms nearer to each other than this multiple of the sum of their covalent radii are bonded."""
BROKEN = 0.5
"""Deviation from the mean length, in Å, above which a bond is broken."""
HYDROGEN_BOND = 2.2
"""Largest distance in Å, in a molecule, between a proton and another atom that it may transfer to."""
TAKERS = (7, 8, 9)
"""Atomic numbers of N, O and F, between which a proton may transfer without a bond being broken."""


@dataclass(frozen=True, eq=False)
class Bonds:
    """Bonds of a structure and their lengths while it is intact.

    A proton that may transfer between several atoms has a bond to each of them; only the bond that deviates least from
    its mean length counts.
    """

    numbers: Integers
    """(N,) atomic numbers."""
    first: Integers
    """(B,) index of one atom of each bond."""
    second: Integers
    """(B,) index of the other atom."""
    mean: Floats
    """(B,) mean lengths, Å."""
    cell: Floats
    """(3, 3) cell vectors, Å; only those of periodic directions are used."""
    pbc: NDArray[np.bool_]
    """(3,) which directions are periodic."""

    def lengths(self, positions: Floats) -> Floats:
        """Return the lengths (..., B) in Å for (..., N, 3) positions, with the nearest image in periodic directions."""
        return _lengths(positions, self.first, self.second, self.cell, self.pbc)

    def off(self, positions: Floats) -> Floats:
        """Return the deviation (...) in Å of the worst bond from its mean length, for (..., N, 3) positions."""
        largest: Floats = self._off(positions)[0].max(axis=-1)
        return largest

    def worst(self, positions: Floats) -> str:
        """Return the name, such as ``O2–H8``, of the bond farthest from its mean length in (N, 3) positions."""
        off, bonds = self._off(positions)
        bond = bonds[int(np.argmax(np.where(np.isnan(off), np.inf, off)))]
        pair = sorted((self.first[bond], self.second[bond]), key=lambda k: -self.numbers[k])
        return "–".join(f"{chemical_symbols[self.numbers[k]]}{k}" for k in pair)

    def names(self) -> list[str]:
        """Return the kinds of all bonds, such as ``O–H``."""
        pairs = zip(self.numbers[self.first], self.numbers[self.second], strict=True)
        return ["–".join(chemical_symbols[z] for z in sorted(pair, reverse=True)) for pair in pairs]

    def holders(self, positions: Floats) -> Integers:
        """Return, for each bonded hydrogen, the index of the bonded atom nearest to it in (N, 3) positions."""
        hydrogen, other = self._hydrogens()
        has = self.numbers[hydrogen] == 1
        order = np.lexsort((self.lengths(positions)[has], hydrogen[has]))
        nearest = np.flatnonzero(np.diff(hydrogen[has][order], prepend=-1))
        holders: Integers = other[has][order][nearest]
        return holders

    def _off(self, positions: Floats) -> tuple[Floats, Integers]:
        """Return the deviation (..., G) in Å of each group of bonds, and the first bond of each group.

        All bonds of a hydrogen form a group, every other bond a group of its own.
        """
        hydrogen, _ = self._hydrogens()
        group = np.where(self.numbers[hydrogen] == 1, hydrogen, len(self.numbers) + np.arange(len(hydrogen)))
        order = np.argsort(group, kind="stable")
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        deviation = np.abs(self.lengths(positions) - self.mean)[..., order]
        return np.minimum.reduceat(deviation, starts, axis=-1), order[starts]

    def _hydrogens(self) -> tuple[Integers, Integers]:
        """Return the two atoms of each bond, the hydrogen first if there is one."""
        swap = self.numbers[self.first] != 1
        return np.where(swap, self.second, self.first), np.where(swap, self.first, self.second)


def find_bonds(atoms: Atoms, frames: Floats | None = None, *, shared_protons: bool = True) -> Bonds:
    """Find the pairs of atoms that are bonded according to their mean distance and covalent radii.

    Parameters
    ----------
    atoms
        Intact structure.
    frames
        Positions (F, N, 3) of the same atoms in Å, over which lengths are averaged; None: only those of `atoms`.
    shared_protons
        Whether a proton on N, O or F may transfer to others of these atoms: to those within 2.2 Å of it in `atoms` or,
        if `atoms` are periodic, to all of them, since in a liquid others come near.

    Returns
    -------
    Bonds
        The bonds; there may be none.
    """
    positions = atoms.positions[None] if frames is None else frames
    cell, pbc, numbers = atoms.cell.complete().array, atoms.pbc.copy(), atoms.numbers.astype(np.int64)
    first, second = np.triu_indices(len(atoms), k=1)
    mean = _lengths(positions, first, second, cell, pbc).mean(axis=0)
    bonded = mean < STRETCH * (covalent_radii[numbers[first]] + covalent_radii[numbers[second]])
    bonds = Bonds(numbers, first[bonded], second[bonded], mean[bonded], cell, pbc)
    return _with_shared_protons(bonds, atoms) if shared_protons else bonds


def first_broken(off: Floats) -> int | None:
    """Return the index of the first of (T,) deviations in Å that means a broken bond, or is NaN; None if none does."""
    intact = off <= BROKEN  # False for NaN
    return None if intact.all() else int(np.argmin(intact))


def _with_shared_protons(bonds: Bonds, atoms: Atoms) -> Bonds:
    """Return the bonds with those of each shared proton to its other acceptors added, with the same mean length."""
    takers = np.isin(bonds.numbers, TAKERS)
    first, second, mean = bonds.first.tolist(), bonds.second.tolist(), bonds.mean.tolist()
    for i, j, own in zip(*bonds._hydrogens(), bonds.mean, strict=True):
        if bonds.numbers[i] == 1 and takers[j]:
            near = takers if atoms.pbc.any() else takers & (atoms.get_distances(i, range(len(atoms))) < HYDROGEN_BOND)
            others = np.flatnonzero(near)
            others = others[others != j].tolist()
            first += [int(i)] * len(others)
            second += others
            mean += [float(own)] * len(others)
    return Bonds(bonds.numbers, np.array(first, int), np.array(second, int), np.array(mean), bonds.cell, bonds.pbc)


def _lengths(positions: Floats, first: Integers, second: Integers, cell: Floats, pbc: NDArray[np.bool_]) -> Floats:
    """Return the lengths (..., B) in Å.

    Rounding finds the nearest image if it is nearer than half the smallest height of the cell.
    """
    vectors = positions[..., first, :] - positions[..., second, :]
    if pbc.any():
        images = np.round(vectors @ np.linalg.inv(cell)) * pbc
        vectors = vectors - images @ cell
    lengths: Floats = np.linalg.norm(vectors, axis=-1)
    return lengths
