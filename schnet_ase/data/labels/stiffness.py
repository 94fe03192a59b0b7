"""The stiffness of bonds to hydrogen by their forces, which is similar in all molecules and thus reveals a wrong unit.

The force on the hydrogen along its bond falls with the bond's length by about 30 eV/Å per Å, whether it is bound to C,
N or O, in a gas or a liquid, by density functional theory or GFN2-xTB, cold or hot.
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
"""Å; longer bonds are ignored."""
_STRETCH = 0.15
"""Å; bonds farther from the median of their kind are breaking, or strained beyond the harmonic range."""
_FEWEST = 20
_SPREAD = 0.003
"""Å; if bond lengths scatter less than this, their surroundings dominate the forces."""
_SURE = 0.8


class Stiffness(NamedTuple):
    """A straight line through the forces against the lengths."""

    slope: float
    """Decrease of the force with the length, in eV/Å²."""
    alike: float
    """Minus the correlation of force and length; below zero if the force grows with the length."""


def stiffness(frames: Sequence[Frame]) -> Stiffness | None:
    """Return the stiffness of bonds to hydrogen; None if there are too few, or if the fit is not clear."""
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
    """Return lengths and forces of one kind of bond, less their means."""
    near = bonds[np.abs(bonds[:, 0] - np.median(bonds[:, 0])) < _STRETCH] if len(bonds) else bonds
    centered: Floats = near - near.mean(axis=0) if len(near) else near
    return centered


def _bonds(frame: Frame) -> Iterator[tuple[int, float, float]]:
    """Yield the element of each hydrogen's nearest atom, the distance to it, and the force away from it."""
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
