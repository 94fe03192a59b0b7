"""How far apart the members of an ensemble put a minimum, which says more about a relaxed structure than forces do."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from schnet_ase.errors import SchNetError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.registry.loading import locate_members
from schnet_ase.simulation.relaxation import optimize

DISTINCT = 0.1
"""Å; members that put a minimum farther apart do not know it."""
STEPS = 200
"""Largest number of steps of a member's own relaxation, which begins near its end."""


def single_members(model: str, device: str | None, dtype: str) -> list[Calculator]:
    """Return a calculator for each member of an ensemble, on one thread; none for a single network."""
    from schnet_ase.calculators.single import SchNetCalculator

    found = locate_members(model)
    if len(found) == 1:
        return []
    return [SchNetCalculator(member.path, device=device, dtype=dtype, threads=1) for member in found]


def minima_deviation(relaxed: Atoms, members: Sequence[Calculator], fmax: float) -> float:
    r"""Relax a structure on with each member, and return how far their minima are from it.

    A force error of 50 meV/Å moves a stiff bond by a thousandth of an ångström and a soft torsion by a tenth. The
    minima of the members show which, whatever the shape of the surface:

    .. math:: \sigma = \sqrt{\frac{1}{M - 1} \sum_{m=1}^M \frac{1}{n} \sum_{i=1}^n |R_m x_{m,i} + t_m - x_i|^2}

    with the n heavy atoms of M members' minima, each of which is superposed on the relaxed structure x.

    Parameters
    ----------
    relaxed
        Minimum of the members' mean; it is not changed. Its cell stays as it is.
    members
        Calculators of the members.
    fmax
        Largest force in eV/Å at which a structure counts as relaxed.

    Returns
    -------
    float
        Å; infinite if the atoms of a member fly apart, NaN for less than two members.
    """
    if len(members) < 2:
        return math.nan
    heavy = relaxed.numbers > 1 if (relaxed.numbers > 1).any() else relaxed.numbers > 0
    start = relaxed.positions[heavy]
    squares = []
    for member in members:
        atoms = relaxed.copy()
        atoms.calc = member
        try:
            optimize(atoms, fmax=fmax, steps=STEPS)
        except SchNetError:
            return math.inf
        squares.append(distance(atoms.positions[heavy], start, turned=not relaxed.pbc.any()) ** 2)
    return math.sqrt(sum(squares) / (len(members) - 1))


def distance(a: Floats, b: Floats, *, turned: bool = True) -> float:
    """Return the root mean square distance in Å of two structures (N, 3) after the best translation, and rotation [1]_.

    References
    ----------
    .. [1] Kabsch, Acta Cryst. A 34, 827 (1978).
    """
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    if turned:
        left, _, right = np.linalg.svd(a.T @ b)
        left[:, -1] *= np.sign(np.linalg.det(left @ right))  # a rotation, no mirror image
        a = a @ left @ right
    return float(np.sqrt(np.mean(np.sum((a - b) ** 2, axis=1))))
