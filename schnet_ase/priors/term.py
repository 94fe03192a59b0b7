"""What an energy term beside the network computes, and the interface by which it is called."""

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
    """An energy as a function of the atoms alone."""

    def __call__(self, system: Geometry, pairs: HalfNeighbors, /) -> Contribution:
        """Energy, forces and virial.

        Parameters
        ----------
        system
            The atoms.
        pairs
            A half list of all pairs within the network's cutoff, with or without more. A term that reaches farther
            finds its own.
        """


def total(terms: Sequence[Term], system: Geometry, pairs: HalfNeighbors) -> Contribution:
    """The sum of some terms."""
    n_atoms = len(system.numbers)
    result = Contribution(np.zeros(n_atoms), np.zeros((n_atoms, 3)), np.zeros((3, 3)))
    for term in terms:
        result = Contribution(*(a + b for a, b in zip(result, term(system, pairs), strict=True)))
    return result
