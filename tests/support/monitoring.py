"""Dynamics with a monitor, and its log."""

import csv

import numpy as np
from ase import units
from ase.md.verlet import VelocityVerlet

from schnet_ase import UncertaintyMonitor


def run(atoms, steps, **arguments):
    """Verlet dynamics with a monitor; every step's positions, momenta and deviations beside it."""
    frames = []
    monitor = UncertaintyMonitor(atoms, **arguments)
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    dynamics.attach(monitor)
    dynamics.attach(
        lambda: frames.append((atoms.get_positions(), atoms.get_momenta(), atoms.calc.results["forces_deviation"]))
    )
    dynamics.run(steps)
    return monitor, frames


def rows(file="uncertainty.csv"):
    with open(file) as lines:
        return list(csv.DictReader(lines))


def middle(atoms, steps=60):
    """A threshold that some frames of the run exceed and some do not."""
    start = atoms.copy()
    start.calc = atoms.calc
    _, frames = run(start, steps, threshold=1e6, log="probe.csv")
    return float(np.median([deviation.max() for _, _, deviation in frames]))
