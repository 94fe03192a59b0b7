"""Time per step of dynamics for several models that are timed in turns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from schnet_ase.calculators.ensemble import SchNetEnsembleCalculator
from schnet_ase.calculators.single import SchNetCalculator
from schnet_ase.networks import SchNet, SchNetConfig
from schnet_ase.registry.card import Card

TIMESTEP_FS = 0.5
YARDSTICK = SchNetConfig(
    n_interactions=3, n_features=128, cutoff=5.0, n_rbf=32, gamma=None, envelope="cosine", filter_activation_last=False
)
"""Network whose time per step makes the times of members comparable between machines."""


class MemberTimes(NamedTuple):
    """Milliseconds per step of velocity Verlet on one thread."""

    members: tuple[float, ...]
    yardstick: float
    """Time of the network `YARDSTICK`."""


def member_times(card: Card) -> MemberTimes:
    """Time an entry's members and the yardstick in turns.

    The yardstick is untrained; its energy is scaled down so far that its forces move nothing.
    """
    atoms = card.structure.atoms()
    yardstick = SchNet(YARDSTICK)
    yardstick.scale.fill_(1e-6)
    steps = 20 if atoms.pbc.any() else 200
    times = milliseconds_per_step(atoms, [*(card.path / m.file for m in card.members), yardstick], steps=steps)
    return MemberTimes(tuple(times[:-1]), times[-1])


def milliseconds_per_step(
    atoms: Atoms, models: Sequence[Path | SchNet], rounds: int = 7, steps: int = 200
) -> list[float]:
    """Return the median over rounds of the time per step of velocity Verlet, for each model on one thread.

    Models from files start at 300 K, networks in memory from rest.
    """
    runs = [
        start(atoms.copy(), SchNetCalculator(model, threads=1), 0.0 if isinstance(model, SchNet) else 300.0)
        for model in models
    ]
    times = np.empty((rounds, len(runs)))
    for row in times:
        for m, dynamics in enumerate(runs):
            began = time.perf_counter()
            dynamics.run(steps)
            row[m] = 1000.0 * (time.perf_counter() - began) / steps
    medians: list[float] = np.median(times, axis=0).tolist()
    return medians


def start(
    atoms: Atoms, calculator: SchNetCalculator | SchNetEnsembleCalculator, kelvin: float = 300.0
) -> VelocityVerlet:
    """Return velocity Verlet dynamics after its first steps, which compile the engine and build a neighbour list."""
    atoms.calc = calculator
    thermalize_momenta(atoms, temperature_K=kelvin, rng=np.random.default_rng(0))
    Stationary(atoms)
    dynamics = VelocityVerlet(atoms, TIMESTEP_FS * units.fs)
    dynamics.run(20)
    return dynamics
