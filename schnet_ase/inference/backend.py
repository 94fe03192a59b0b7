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


class Backend(Protocol):
    """M networks as one function of a geometry, on whatever device and by whatever program."""

    def __call__(self, system: Geometry, pairs: HalfNeighbors, /) -> SystemPrediction:
        """Energies, forces and virial; `pairs` is a half list sorted by its first atom, with or without a skin."""
