"""Time per step of dynamics, of several models taking turns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator

TIMESTEP_FS = 0.5


def milliseconds_per_step(atoms: Atoms, models: Sequence[Path], rounds: int = 7, steps: int = 200) -> list[float]:
    """Of Velocity Verlet from 300 K with each model on one thread; the median over rounds."""
    runs = [start(atoms.copy(), SchNetCalculator(model, threads=1)) for model in models]
    times = np.empty((rounds, len(runs)))
    for row in times:
        for m, dynamics in enumerate(runs):
            began = time.perf_counter()
            dynamics.run(steps)
            row[m] = 1000.0 * (time.perf_counter() - began) / steps
    return np.median(times, axis=0).tolist()


def start(atoms: Atoms, calculator: SchNetCalculator | SchNetEnsembleCalculator) -> VelocityVerlet:
    """Velocity Verlet from 300 K, compiled and with a neighbour list."""
    atoms.calc = calculator
    thermalize_momenta(atoms, temperature_K=300.0, rng=np.random.default_rng(0))
    Stationary(atoms)
    dynamics = VelocityVerlet(atoms, TIMESTEP_FS * units.fs)
    dynamics.run(20)
    return dynamics
