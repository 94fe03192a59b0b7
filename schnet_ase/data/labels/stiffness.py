"""How stiff bonds to hydrogen are by the forces: much the same in every molecule, and so a measure of their unit.

The force on the hydrogen along its bond falls with the bond's length by about 30 eV/Å a Å, be it at C, N or O, in a gas
or a liquid, by density functional theory or GFN2-xTB, cold or hot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from schnet_ase.data.frames import Frame
from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.neighbors import half_neighbor_list

TYPICAL = 33.0
"""eV/Å²; sets of molecules and of water at 300 to 1500 K have 27 to 40."""
_PARTNERS = (6, 7, 8)
_REACH = 1.4
"""Å; no longer bond is looked at."""
_STRETCH = 0.15
"""Å; bonds farther from the median of their kind are breaking, or strained beyond what is harmonic."""
_FEWEST = 20
_SPREAD = 0.003
"""Å; in sets of bonds that are more alike than that the forces are those of their surroundings."""
_SURE = 0.8


class Stiffness(NamedTuple):
    """What a straight line through the forces over the lengths says."""

    slope: float
    """By which the force falls with the length, in eV/Å²."""
    alike: float
    """Correlation of the two; below zero where the force grows with the length."""


def stiffness(frames: Sequence[Frame]) -> Stiffness | None:
    """How stiff bonds to hydrogen are; None where too few are there, or none that say it clearly."""
    bonds = np.array([bond for frame in frames for bond in _bonds(frame)]).reshape(-1, 3)
    kinds = [_centered(bonds[bonds[:, 0] == partner, 1:]) for partner in _PARTNERS]
    lengths, pulls = np.concatenate(kinds).T
    if len(lengths) < _FEWEST or lengths.std() < _SPREAD or not pulls.any():
        return None
    product = -float(lengths @ pulls)
    found = Stiffness(
        product / float(lengths @ lengths), product / float(np.linalg.norm(lengths) * np.linalg.norm(pulls))
    )
    return found if abs(found.alike) > _SURE else None


def _centered(bonds: Floats) -> Floats:
    """Lengths and forces of one kind of bond, less their means."""
    near = bonds[np.abs(bonds[:, 0] - np.median(bonds[:, 0])) < _STRETCH] if len(bonds) else bonds
    centered: Floats = near - near.mean(axis=0) if len(near) else near
    return centered


def _bonds(frame: Frame) -> Iterator[tuple[int, float, float]]:
    """The element of each hydrogen's nearest atom, the distance to it, and the force away from it."""
    forces, (numbers, positions, cell, pbc) = frame.forces, frame.geometry
    if forces is None or forces.shape != positions.shape or not np.isfinite(forces).all():
        return
    first, second, shifts = half_neighbor_list(positions, cell, pbc, _REACH)
    vectors = positions[second] - positions[first] + shifts @ cell
    atoms, others = np.concatenate([second, first]), np.concatenate([first, second])
    away = np.concatenate([vectors, -vectors])
    distances = np.linalg.norm(away, axis=1)
    seen = set[int]()
    for k in np.argsort(distances):
        atom, partner = int(atoms[k]), int(numbers[others[k]])
        if numbers[atom] != 1 or atom in seen:
            continue
        seen.add(atom)
        if partner in _PARTNERS and 0.0 < distances[k] < _REACH:
            yield partner, float(distances[k]), float(forces[atom] @ away[k] / distances[k])
