"""Interface of the backends that evaluate networks, and the type of their results."""

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
    """Predictions of M models for one system of N atoms."""

    energies: Floats
    """(M, N) eV, per atom."""
    forces: Floats
    """(M, N, 3) eV/Å."""
    virial: Floats
    """(M, 3, 3) eV."""
    closest: Closest
    pair_gradients: Floats | None = None
    """(M, P, 3) eV/Å, derivative of the energy that the backend computes with respect to the vector of each pair of the
    list, from its first atom to its second; zero beyond the cutoff. None if they were not requested."""


class Backend(Protocol):
    """M networks as one function of a geometry, whatever the device and the implementation."""

    def __call__(self, system: Geometry, pairs: HalfNeighbors, /, *, pair_gradients: bool = False) -> SystemPrediction:
        """Compute energies, forces and virial and, if requested, the pair gradients.

        Pair gradients are needed by engines that exchange forces between processors, and for per-atom virials and heat
        fluxes. With :math:`g_{ij} = \\partial E / \\partial r_{ij}`, the forces are
        :math:`F_i = \\sum_j g_{ij} - \\sum_j g_{ji}` and the virial is :math:`\\sum_{ij} r_{ij} \\otimes g_{ij}`.

        Parameters
        ----------
        system
            System of N atoms.
        pairs
            Half list of P pairs sorted by the first atom, with or without a skin.
        pair_gradients
            Whether to compute `SystemPrediction.pair_gradients`.
        """
