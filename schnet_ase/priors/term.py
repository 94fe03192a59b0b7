"""Interface of the energy terms beside the network, and the type of their results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.neighbors import HalfNeighbors
from schnet_ase.geometry.system import Geometry


class Contribution(NamedTuple):
    """Energy and derivatives of one system of N atoms."""

    energies: Floats
    """(N,) eV, per atom; their sum is the energy."""
    forces: Floats
    """(N, 3) eV/Å."""
    virial: Floats
    """(3, 3) eV: the derivative of the energy with respect to a strain of atoms and cell."""


class Term(Protocol):
    """Energy as a function of the atoms alone."""

    def __call__(self, system: Geometry, pairs: HalfNeighbors, /) -> Contribution:
        """Compute energy, forces and virial.

        Parameters
        ----------
        system
            System of N atoms.
        pairs
            Half list of all pairs within the network's cutoff, possibly with more distant ones. A term with a longer
            range finds its own pairs.
        """

    def hessian(self, system: Geometry, pairs: HalfNeighbors, /) -> Floats:
        """Compute the second derivatives of the energy with respect to the positions, (N, 3, N, 3) eV/Å²."""

    def pair_gradients(self, system: Geometry, pairs: HalfNeighbors, /) -> Floats | None:
        """Compute the derivative of the energy with respect to each pair vector, (P, 3) eV/Å.

        None if the energy is not a sum over these pairs.
        """


def total(terms: Sequence[Term], system: Geometry, pairs: HalfNeighbors) -> Contribution:
    """Return the sum of the contributions of some terms."""
    n_atoms = len(system.numbers)
    result = Contribution(np.zeros(n_atoms), np.zeros((n_atoms, 3)), np.zeros((3, 3)))
    for term in terms:
        result = Contribution(*(a + b for a, b in zip(result, term(system, pairs), strict=True)))
    return result
