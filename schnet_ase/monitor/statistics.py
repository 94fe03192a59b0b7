"""Quantities that a monitor needs of every frame, computed by one compiled function.

A check follows a call of the engine, after which NumPy's code is no longer in the processor's caches. Every function
call then costs about a microsecond, which for few atoms is more than its work.
"""

from __future__ import annotations

import math
from typing import Any

from schnet_ase.engine.jit import compiled_once


@compiled_once
def look(deviation: Any, watched: Any, momenta: Any, inverse_masses: Any) -> tuple[float, int, float, float]:
    """Return twice the kinetic energy, the atom with the largest deviation, that deviation, and the smallest one.

    Parameters
    ----------
    deviation
        (N,) deviations. If any is NaN, the first such watched atom counts as the one with the largest.
    watched
        (K,) indices of the watched atoms.
    momenta
        (N, 3) momenta.
    inverse_masses
        (N,) inverse masses.
    """
    kinetic = 0.0
    for i in range(len(momenta)):
        for k in range(3):
            kinetic += momenta[i, k] * momenta[i, k] * inverse_masses[i]
    atom, largest, smallest = watched[0], -math.inf, math.inf
    for i in watched:
        value = deviation[i]
        if math.isnan(value):
            return kinetic, i, value, value
        if value > largest:
            atom, largest = i, value
        smallest = min(smallest, value)
    return kinetic, atom, largest, smallest


@compiled_once
def strengths(momenta: Any, forces: Any, inverse_masses: Any) -> tuple[float, float]:
    """Return twice the kinetic energy and the square of the largest force, which is infinite if one is NaN.

    Parameters
    ----------
    momenta, forces
        (N, 3) momenta and forces.
    inverse_masses
        (N,) inverse masses.
    """
    kinetic, strongest = 0.0, 0.0
    for i in range(len(momenta)):
        force = 0.0
        for k in range(3):
            kinetic += momenta[i, k] * momenta[i, k] * inverse_masses[i]
            force += forces[i, k] * forces[i, k]
        if not force <= strongest:
            strongest = math.inf if math.isnan(force) else force
    return kinetic, strongest
