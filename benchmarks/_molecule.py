"""Bonds and distances of a molecule: what the stability study measures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii

from schnet_ase.geometry.arrays import Floats, Integers

BINS, FARTHEST = 500, 10.0  # of h(r), Å
HYDROGEN_BOND = 2.2  # Å, from the proton to the atom that takes it
STRETCH = 1.25  # times the sum of covalent radii: what counts as a bond


class Bonds(NamedTuple):
    """The bonds of a molecule and their lengths in reference frames."""

    first: Integers
    second: Integers
    mean: Floats
    """Å."""
    longest: Floats
    """Å."""

    def lengths(self, positions: Floats) -> Floats:
        """(..., bonds) Å."""
        return np.linalg.norm(positions[..., self.first, :] - positions[..., self.second, :], axis=-1)

    def off(self, positions: Floats, numbers: Integers) -> Floats:
        """(...) Å by which the worst bond is off its mean length; of several of one hydrogen the best counts."""
        one_of_two = np.where(numbers[self.first] == 1, self.first, self.second)
        group = np.where(numbers[one_of_two] == 1, one_of_two, len(numbers) + np.arange(len(one_of_two)))
        order = np.argsort(group, kind="stable")
        deviation = np.abs(self.lengths(positions) - self.mean)[..., order]
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        largest: Floats = np.minimum.reduceat(deviation, starts, axis=-1).max(axis=-1)
        return largest

    def names(self, numbers: Integers) -> list[str]:
        """Kinds of the bonds, like ``O–H``."""
        pairs = zip(numbers[self.first], numbers[self.second], strict=True)
        return ["–".join(chemical_symbols[z] for z in sorted(pair, reverse=True)) for pair in pairs]


def find_bonds(numbers: Integers, frames: Floats) -> Bonds:
    """Pairs of atoms whose mean distance in (B, N, 3) frames is that of a bond by covalent radii."""
    first, second = np.triu_indices(len(numbers), k=1)
    lengths = np.linalg.norm(frames[:, first] - frames[:, second], axis=-1)
    mean = lengths.mean(axis=0)
    bonded = mean < STRETCH * (covalent_radii[numbers[first]] + covalent_radii[numbers[second]])
    return Bonds(first[bonded], second[bonded], mean[bonded], lengths[:, bonded].max(axis=0))


def with_shared_protons(bonds: Bonds, atoms: Atoms) -> Bonds:
    """The bonds, and for a hydrogen between several of N, O and F one to each, as long as its own: see `Bonds.off`."""
    near = atoms.get_all_distances() < HYDROGEN_BOND
    takers = np.isin(atoms.numbers, [7, 8, 9])
    first, second, mean, longest = (values.tolist() for values in bonds)
    for i, j, own, most in zip(*bonds, strict=True):
        hydrogen, holder = (i, j) if atoms.numbers[i] == 1 else (j, i)
        if atoms.numbers[hydrogen] == 1 and takers[holder]:
            for other in np.flatnonzero(near[hydrogen] & takers):
                if other != holder:
                    first.append(int(hydrogen))
                    second.append(int(other))
                    mean.append(own)
                    longest.append(most)
    return Bonds(*(np.array(values) for values in (first, second, mean, longest)))


def distance_counts(positions: Floats) -> Integers:
    """(BINS,) how many of the interatomic distances of (..., N, 3) frames fall into each bin."""
    first, second = np.triu_indices(positions.shape[-2], k=1)
    distances = np.linalg.norm(positions[..., first, :] - positions[..., second, :], axis=-1)
    return np.histogram(distances, BINS, (0.0, FARTHEST))[0]


def distribution(counts: Integers) -> Floats:
    """h(r) in 1/Å."""
    return counts / (counts.sum() * FARTHEST / BINS)


def distribution_error(counts: Integers, reference: Integers) -> float:
    """The mean over bins of |h - h_ref|, times 10 Å: the integral of Fu et al., TMLR 2023."""
    return float(np.abs(distribution(counts) - distribution(reference)).mean() * FARTHEST)


def pulled(atoms: Atoms, bonds: Bonds, bond: int, by: float) -> Atoms:
    """`atoms` with one bond longer by `by` Å: the smaller part of the molecule is moved along it."""
    i, j = int(bonds.first[bond]), int(bonds.second[bond])
    others = [(a, b) for k, (a, b) in enumerate(zip(bonds.first, bonds.second, strict=True)) if k != bond]
    sides = []
    for start in (i, j):
        reached, edge = {start}, {start}
        while edge:
            edge = {b for pair in others for a, b in (pair, pair[::-1]) if a in edge} - reached
            reached |= edge
        sides.append(sorted(reached))
    if set(sides[0]) & set(sides[1]):
        raise ValueError(f"the bond between atoms {i} and {j} is part of a ring")
    direction = atoms.positions[j] - atoms.positions[i]
    direction /= np.linalg.norm(direction)
    moving, sign = (sides[0], -1.0) if len(sides[0]) < len(sides[1]) else (sides[1], 1.0)
    longer = atoms.copy()
    longer.positions[moving] += sign * by * direction
    return longer
