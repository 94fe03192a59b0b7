"""Net forces and torques, which are zero without external forces."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from schnet_ase.data.summary.flat import Flat
from schnet_ase.geometry.arrays import Floats


class Balance(NamedTuple):
    """Net force and torque of F frames; NaN for frames without forces or of a single atom."""

    net_force: Floats
    """(F,) eV/Å."""
    net_torque: Floats
    """(F,) eV about the centre of the atoms; NaN also for periodic frames."""
    relative_force: Floats
    """(F,) the net force divided by the root of the summed squares of the forces: about 1 for random forces."""
    relative_torque: Floats
    """(F,) the net torque divided by the root of the summed squares of the torques of the atoms."""


def balance(flat: Flat) -> Balance:
    """Add up the forces and torques of each frame."""
    middle = flat.sums(flat.positions) / flat.n_atoms[:, None]
    torques = np.cross(flat.positions - middle[flat.frame], flat.forces)
    net_force = np.linalg.norm(flat.sums(flat.forces), axis=1)
    net_torque = np.linalg.norm(flat.sums(torques), axis=1)
    net_force[flat.free_atoms] = np.nan
    net_torque[flat.free_atoms | flat.pbc.any(axis=1)] = np.nan
    return Balance(
        net_force,
        net_torque,
        _per(net_force, np.sqrt(flat.sums(np.square(flat.forces).sum(axis=1)))),
        _per(net_torque, np.sqrt(flat.sums(np.square(torques).sum(axis=1)))),
    )


def _per(net: Floats, whole: Floats) -> Floats:
    """Return the quotient, zero if both are zero."""
    return np.asarray(net / np.where(whole > 0.0, whole, 1.0))
