"""
Molecular dynamics with an ensemble
===================================

This tutorial runs Velocity-Verlet dynamics of ethanol with the shipped ensemble, and shows how far its five members
disagree. It writes ``01-molecular-dynamics.png`` and ``01-molecular-dynamics.traj`` into the current folder.
"""

import argparse

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase import units
from ase.build import molecule
from ase.io import Trajectory
from ase.md.verlet import VelocityVerlet

from schnet_ase import SchNetEnsembleCalculator
from schnet_ase.geometry.motion import draw_velocities, equilibrate

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=2000)
steps = parser.parse_args().steps

# %%
# The calculator takes the name of an entry. The ensemble computes its five members at once.

atoms = molecule("CH3CH2OH")
atoms.calc = SchNetEnsembleCalculator("rmd17-ethanol")
# Velocities drawn at 300 K would end at half of that, because the bonds take up the other half: equilibrate first.
rng = np.random.default_rng(0)
draw_velocities(atoms, 300, rng)
equilibrate(atoms, 300, timestep_fs=0.5, rng=rng)

# %%
# The largest ``forces_deviation`` of each step is in the results that the step has just made, so that recording it
# costs nothing.

dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
times, totals, deviations = [], [], []


def record() -> None:
    times.append(dynamics.get_time() / (1000 * units.fs))
    totals.append(atoms.get_total_energy())
    deviations.append(atoms.calc.results["forces_deviation"].max())


dynamics.attach(record, interval=10)
with Trajectory("01-molecular-dynamics.traj", "w", atoms) as trajectory:
    dynamics.attach(trajectory.write, interval=10)
    dynamics.run(steps)

# %%
# Velocity Verlet conserves the total energy up to a fluctuation that shrinks with the square of the time step.

drift = 1000 * (totals[-1] - totals[0]) / len(atoms)
print(f"{times[-1]:.2f} ps: the total energy changed by {drift:.3f} meV/atom")
print(f"largest forces_deviation: {max(deviations):.3f} eV/Å")

figure, (top, bottom) = plt.subplots(2, 1, sharex=True, layout="constrained")
top.plot(times, [1000 * (e - totals[0]) / len(atoms) for e in totals])
top.set_ylabel("total energy − initial\n(meV/atom)")
bottom.plot(times, deviations, color="tab:purple")
bottom.set(xlabel="time (ps)", ylabel="largest forces_deviation\n(eV/Å)")
figure.savefig("01-molecular-dynamics.png", dpi=150)
