"""What a monitor takes from every frame, as one compiled function.

A look follows a call of the engine, which has driven NumPy's code and everything else out of the processor's caches:
each function that is called then costs about a microsecond, of few atoms more than what it does.
"""

from __future__ import annotations

import math
from typing import Any

from schnet_ase.engine.jit import compiled_once


@compiled_once
def look(deviation: Any, watched: Any, momenta: Any, inverse_masses: Any) -> tuple[float, int, float, float]:
    """Twice the kinetic energy, the atom with the largest deviation, that deviation, and the smallest one.

    Parameters
    ----------
    deviation
        (N,). The first of the watched atoms where it is no number counts as the one with the largest.
    watched
        (K,) numbers of the atoms whose deviations are looked at.
    momenta
        (N, 3).
    inverse_masses
        (N,).
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
