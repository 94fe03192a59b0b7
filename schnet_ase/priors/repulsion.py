"""Energy of two nuclei that repel each other as a function of their distance; see `schnet_ase.priors.zbl`."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.units import Bohr, Hartree

from schnet_ase.geometry.arrays import Floats

COULOMB = float(Hartree * Bohr)
"""e² / (4 π ε₀), eV Å."""


def repulsion(charges: Any, screening: Any, reach: Any, r: Any) -> Any:
    """Return the energy of pairs of atoms in eV and its slope in eV/Å, for numbers or arrays of one shape.

    The compiled engine compiles this function, so it contains only arithmetic.

    Parameters
    ----------
    charges
        Product of the atomic numbers.
    screening
        1 / a, Å⁻¹.
    reach
        R, Å; above `r`.
    r
        Distance, Å.
    """
    x = screening * r
    e1, e2 = 0.18175 * np.exp(-3.19980 * x), 0.50986 * np.exp(-0.94229 * x)
    e3, e4 = 0.28022 * np.exp(-0.40290 * x), 0.02817 * np.exp(-0.20162 * x)
    screened = e1 + e2 + e3 + e4
    screened_slope = -screening * (3.19980 * e1 + 0.94229 * e2 + 0.40290 * e3 + 0.20162 * e4)
    y = r / reach
    y5 = y * y * y * y * y
    switch = 1.0 + y5 * y * (-28.0 + y * (48.0 - 21.0 * y))
    switch_slope = -168.0 * y5 * (1.0 - y) * (1.0 - y) / reach
    bare = COULOMB * charges / r
    energy = bare * screened * switch
    return energy, bare * (screened_slope * switch + screened * switch_slope) - energy / r


def curvature(charges: Floats, screening: Floats, reach: Floats, r: Floats) -> Floats:
    """Return the second derivative of the energy of pairs of atoms, eV/Å²; the arguments are those of `repulsion`."""
    e = np.multiply.outer([0.18175, 0.50986, 0.28022, 0.02817], np.ones_like(r))
    k = np.multiply.outer([3.19980, 0.94229, 0.40290, 0.20162], screening)
    e *= np.exp(-k * r)
    phi, phi1, phi2 = e.sum(axis=0), -(k * e).sum(axis=0), (k * k * e).sum(axis=0)
    y = r / reach
    switch = 1.0 + y**6 * (-28.0 + y * (48.0 - 21.0 * y))
    switch1 = -168.0 * y**5 * (1.0 - y) ** 2 / reach
    switch2 = -168.0 * y**4 * (1.0 - y) * (5.0 - 7.0 * y) / reach**2
    f, f1 = phi * switch, phi1 * switch + phi * switch1
    f2 = phi2 * switch + 2.0 * phi1 * switch1 + phi * switch2
    second: Floats = COULOMB * charges * (f2 / r - 2.0 * f1 / r**2 + 2.0 * f / r**3)
    return second
