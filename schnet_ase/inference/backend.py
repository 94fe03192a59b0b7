"""What every backend computes, and the interface by which the evaluator calls it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.neighbors import HalfNeighbors
from schnet_ase.geometry.system import Geometry


class Closest(NamedTuple):
    """The two atoms of a system that are nearest to each other."""

    distance: float
    first: int
    second: int


class SystemPrediction(NamedTuple):
    """What M models say of one system of N atoms."""

    energies: Floats
    """(M, N) eV, per atom."""
    forces: Floats
    """(M, N, 3) eV/Å."""
    virial: Floats
    """(M, 3, 3) eV."""
    closest: Closest
    pair_gradients: Floats | None = None
    """(M, P, 3) eV/Å, derivative of the energy with respect to the vector of each pair of the list, from its first atom
    to its second, of what the backend computes; zero beyond the cutoff. None where they were not asked for."""


class Backend(Protocol):
    """M networks as one function of a geometry, on whatever device and by whatever program."""

    def __call__(self, system: Geometry, pairs: HalfNeighbors, /, *, pair_gradients: bool = False) -> SystemPrediction:
        """Compute energies, forces and virial, and where asked for the gradients of pairs.

        An engine that sends forces between processors, a virial of each atom and a heat flux need the gradients of
        pairs: with :math:`g_{ij} = \\partial E / \\partial r_{ij}` forces are
        :math:`F_i = \\sum_j g_{ij} - \\sum_j g_{ji}` and the virial is :math:`\\sum_{ij} r_{ij} \\otimes g_{ij}`.

        Parameters
        ----------
        system
            N atoms.
        pairs
            A half list of P pairs sorted by the first atom, with or without a skin.
        pair_gradients
            Whether `SystemPrediction.pair_gradients` is wanted.
        """
