r"""Screened repulsion of two nuclei, which pushes apart atoms that come too near to each other.

Training frames have no atoms that nearly coincide, so the predictions of a network are arbitrary there. The energy of
Ziegler, Biersack and Littmark,

.. math::

    E_{ij} = \frac{e^2}{4 \pi \varepsilon_0} \frac{Z_i Z_j}{r} \, \varphi(r / a) \, S(r / R), \qquad
    a = \frac{0.46850\,\text{Å}}{Z_i^{0.23} + Z_j^{0.23}},

with their universal screening function

.. math::

    \varphi(x) = 0.18175 e^{-3.19980 x} + 0.50986 e^{-0.94229 x} + 0.28022 e^{-0.40290 x} + 0.02817 e^{-0.20162 x},

diverges as 1/r when the distance r goes to zero. It is switched off by
:math:`S(x) = 1 - 28 x^6 + 48 x^7 - 21 x^8`, whose value, slope and curvature vanish at the distance R, four fifths of
the sum of the covalent radii. MACE uses the same switch, but ends it at the sum itself. That is the length of a bond
(multiple bonds are even shorter), so training frames would lie in the steep tail of the switch, which the network would
have to learn to compensate. Four fifths is below the distances that atoms reach in dynamics at a few hundred kelvin.

References
----------
Ziegler, Biersack, Littmark, *The Stopping and Range of Ions in Solids*, Pergamon (1985); the numbers are those of
LAMMPS, ``pair_style zbl``. The switch is eq. 8 of Gasteiger, Groß, Günnemann, ICLR (2020), with p = 6.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase.data import covalent_radii

from schnet_ase.errors import StructureError
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.geometry.neighbors import HalfNeighbors, pair_vectors
from schnet_ase.geometry.system import Geometry
from schnet_ase.priors.repulsion import curvature, repulsion
from schnet_ase.priors.term import Contribution

SHARE = 0.8
"""Ratio of the distance R, where the repulsion ends, to the sum of the covalent radii."""


def reaches(max_z: int) -> Floats:
    """Return what each atom of a pair adds to R in Å, (max_z,) by atomic number; unknown radii are 0.2 Å as in ASE."""
    radii: Floats = np.full(max(max_z, len(covalent_radii)), 0.2)
    radii[: len(covalent_radii)] = covalent_radii
    return SHARE * radii[:max_z]


def screenings(max_z: int) -> Floats:
    """Return what each atom of a pair adds to 1 / a in Å⁻¹, (max_z,) by atomic number."""
    parts: Floats = np.asarray(np.arange(max_z) ** 0.23 / 0.46850, dtype=np.float64)
    return parts


class _Near(NamedTuple):
    """Pairs that repel, (K,) each, and what `repulsion` needs of them."""

    place: Integers
    """Index of each in the list of all pairs."""
    first: Integers
    second: Integers
    vectors: Floats
    distances: Floats
    charges: Floats
    screening: Floats
    reach: Floats


class ZBL:
    """Repulsion of all pairs of atoms.

    Parameters
    ----------
    cutoff
        Distance in Å beyond which no pair repels, whatever its covalent radii; None: no such bound.
    """

    def __init__(self, cutoff: float | None) -> None:
        self._cutoff = np.inf if cutoff is None else cutoff

    def __call__(self, system: Geometry, pairs: HalfNeighbors) -> Contribution:
        """Compute energies (half of each pair's energy for either atom), forces and virial.

        Raises
        ------
        StructureError
            Two atoms coincide.
        """
        near = self._near(system, pairs)
        energy, slope = repulsion(near.charges, near.screening, near.reach, near.distances)
        gradients = (slope / near.distances)[:, None] * near.vectors
        energies, forces = np.zeros(len(system.numbers)), np.zeros((len(system.numbers), 3))
        for atoms, sign in ((near.first, 1.0), (near.second, -1.0)):
            np.add.at(energies, atoms, 0.5 * energy)
            np.add.at(forces, atoms, sign * gradients)
        return Contribution(energies, forces, near.vectors.T @ gradients)

    def pair_gradients(self, system: Geometry, pairs: HalfNeighbors) -> Floats:
        """Return the derivative of the energy with respect to each pair vector, (P, 3) eV/Å; see `__call__`."""
        near = self._near(system, pairs)
        slope = repulsion(near.charges, near.screening, near.reach, near.distances)[1]
        gradients = np.zeros((len(pairs.first), 3))
        gradients[near.place] = (slope / near.distances)[:, None] * near.vectors
        return gradients

    def hessian(self, system: Geometry, pairs: HalfNeighbors) -> Floats:
        """Return the second derivatives of the energy with respect to the positions, (N, 3, N, 3) eV/Å²."""
        near = self._near(system, pairs)
        arguments = (near.charges, near.screening, near.reach, near.distances)
        slope, second = repulsion(*arguments)[1] / near.distances, curvature(*arguments)
        unit = near.vectors / near.distances[:, None]
        along = unit[:, :, None] * unit[:, None, :]
        blocks = second[:, None, None] * along + slope[:, None, None] * (np.eye(3) - along)
        n_atoms = len(system.numbers)
        result = np.zeros((n_atoms, n_atoms, 3, 3))
        for i, j, sign in (
            (near.first, near.first, 1.0),
            (near.second, near.second, 1.0),
            (near.first, near.second, -1.0),
            (near.second, near.first, -1.0),
        ):
            np.add.at(result, (i, j), sign * blocks)
        return result.swapaxes(1, 2)

    def _near(self, system: Geometry, pairs: HalfNeighbors) -> _Near:
        """Return the pairs that repel."""
        numbers, (first, second) = system.numbers, (pairs.first, pairs.second)
        reach = np.minimum(_sums(reaches(int(numbers.max()) + 1), numbers, first, second), self._cutoff)
        vectors = pair_vectors(system, pairs)
        distances = np.sqrt(np.einsum("pk,pk->p", vectors, vectors))
        near = np.flatnonzero(distances < reach)
        first, second, vectors, distances = first[near], second[near], vectors[near], distances[near]
        if not distances.all():
            pair = int(np.argmin(distances))
            raise StructureError(f"atoms {first[pair]} and {second[pair]} are on one spot; move or remove one")
        charges = (numbers[first] * numbers[second]).astype(float)
        screening = _sums(screenings(int(numbers.max()) + 1), numbers, first, second)
        return _Near(near, first, second, vectors, distances, charges, screening, reach[near])


def _sums(values: Floats, numbers: Integers, first: Integers, second: Integers) -> Floats:
    """Return the sum over the two atoms of each pair of a value by atomic number."""
    sums: Floats = values[numbers[first]] + values[numbers[second]]
    return sums
