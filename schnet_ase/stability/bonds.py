"""Bonds of a structure, and when one of them is broken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import NDArray

from schnet_ase.geometry.arrays import Floats, Integers

STRETCH = 1.25
"""Times the sum of covalent radii: atoms nearer to each other than that are bonded."""
BROKEN = 0.5
"""Å. A bond whose length is farther than this from its mean is broken."""
HYDROGEN_BOND = 2.2
"""Å, in a molecule: how far a proton may be from another atom that it may go to."""
TAKERS = (7, 8, 9)
"""N, O and F: atoms between which a proton may change sides without a bond being broken."""


@dataclass(frozen=True, eq=False)
class Bonds:
    """The bonds of a structure, and their lengths where it is sound.

    A proton that may be on several atoms has a bond to each of them; of these the one nearest to its length counts.
    """

    numbers: Integers
    """(N,) atomic numbers."""
    first: Integers
    """(B,) one atom of each bond."""
    second: Integers
    """(B,) the other."""
    mean: Floats
    """(B,) Å."""
    cell: Floats
    """(3, 3) Å, of the periodic directions."""
    pbc: NDArray[np.bool_]
    """(3,) which directions are periodic."""

    def lengths(self, positions: Floats) -> Floats:
        """(..., B) Å for (..., N, 3) positions; to the nearest image in periodic directions."""
        return _lengths(positions, self.first, self.second, self.cell, self.pbc)

    def off(self, positions: Floats) -> Floats:
        """(...) Å by which the worst bond is off its mean length."""
        largest: Floats = self._off(positions)[0].max(axis=-1)
        return largest

    def worst(self, positions: Floats) -> str:
        """The bond that is farthest from its mean length in (N, 3) positions, like ``O2–H8``."""
        off, bonds = self._off(positions)
        bond = bonds[int(np.argmax(np.where(np.isnan(off), np.inf, off)))]
        pair = sorted((self.first[bond], self.second[bond]), key=lambda k: -self.numbers[k])
        return "–".join(f"{chemical_symbols[self.numbers[k]]}{k}" for k in pair)

    def names(self) -> list[str]:
        """Kinds of the bonds, like ``O–H``."""
        pairs = zip(self.numbers[self.first], self.numbers[self.second], strict=True)
        return ["–".join(chemical_symbols[z] for z in sorted(pair, reverse=True)) for pair in pairs]

    def holders(self, positions: Floats) -> Integers:
        """The atom that each hydrogen with a bond is nearest to, in (N, 3) positions."""
        hydrogen, other = self._hydrogens()
        has = self.numbers[hydrogen] == 1
        order = np.lexsort((self.lengths(positions)[has], hydrogen[has]))
        nearest = np.flatnonzero(np.diff(hydrogen[has][order], prepend=-1))
        holders: Integers = other[has][order][nearest]
        return holders

    def _off(self, positions: Floats) -> tuple[Floats, Integers]:
        """(..., G) Å that each group of bonds is off, and the first bond of each; a hydrogen's bonds are a group."""
        hydrogen, _ = self._hydrogens()
        group = np.where(self.numbers[hydrogen] == 1, hydrogen, len(self.numbers) + np.arange(len(hydrogen)))
        order = np.argsort(group, kind="stable")
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        deviation = np.abs(self.lengths(positions) - self.mean)[..., order]
        return np.minimum.reduceat(deviation, starts, axis=-1), order[starts]

    def _hydrogens(self) -> tuple[Integers, Integers]:
        """Of each bond the hydrogen, or else an atom, and the other one."""
        swap = self.numbers[self.first] != 1
        return np.where(swap, self.second, self.first), np.where(swap, self.first, self.second)


def find_bonds(atoms: Atoms, frames: Floats | None = None, *, shared_protons: bool = True) -> Bonds:
    """Pairs of atoms whose mean distance is that of a bond by covalent radii.

    Parameters
    ----------
    atoms
        A structure that is sound.
    frames
        (F, N, 3) Å, more positions of the same atoms, over which lengths are averaged. None: those of `atoms` alone.
    shared_protons
        Whether a proton on N, O or F may change sides: to those that are within 2.2 Å of it in `atoms`, or to all of
        them where `atoms` are periodic, since in a liquid others come near.
    """
    positions = atoms.positions[None] if frames is None else frames
    cell, pbc, numbers = atoms.cell.complete().array, atoms.pbc.copy(), atoms.numbers.astype(np.int64)
    first, second = np.triu_indices(len(atoms), k=1)
    mean = _lengths(positions, first, second, cell, pbc).mean(axis=0)
    bonded = mean < STRETCH * (covalent_radii[numbers[first]] + covalent_radii[numbers[second]])
    bonds = Bonds(numbers, first[bonded], second[bonded], mean[bonded], cell, pbc)
    return _with_shared_protons(bonds, atoms) if shared_protons else bonds


def first_broken(off: Floats) -> int | None:
    """The first of (T,) deviations in Å at which a bond is broken, or its length no number; None if none is."""
    intact = off <= BROKEN  # not where it is not a number
    return None if intact.all() else int(np.argmin(intact))


def _with_shared_protons(bonds: Bonds, atoms: Atoms) -> Bonds:
    """The bonds, and for each proton between several takers one to each, as long as its own."""
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
    """(..., B) Å. Rounding finds the nearest image wherever that is nearer than half the cell is high."""
    vectors = positions[..., first, :] - positions[..., second, :]
    if pbc.any():
        images = np.round(vectors @ np.linalg.inv(cell)) * pbc
        vectors = vectors - images @ cell
    lengths: Floats = np.linalg.norm(vectors, axis=-1)
    return lengths
