"""
Flagging uncertain frames during a run
======================================

This tutorial heats ethanol until the ensemble no longer knows it. The monitor flags uncertain frames and keeps
those that are of use. The script writes ``03-flag-during-md.png``, ``03-uncertainty.csv`` and the flagged frames,
``03-flagged.extxyz``, into the current folder.
"""

import argparse

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase import units
from ase.build import molecule
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta

from schnet_ase import SchNetEnsembleCalculator, UncertaintyMonitor

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=6000)
steps = parser.parse_args().steps

rng = np.random.default_rng(0)
atoms = molecule("CH3CH2OH")
atoms.calc = SchNetEnsembleCalculator("rmd17-ethanol")
thermalize_momenta(atoms, temperature_K=300, rng=rng)
dynamics = Langevin(atoms, 0.5 * units.fs, temperature_K=300, friction=0.02 / units.fs, fixcm=False, rng=rng)

# %%
# The default threshold is the ensemble's own: one frame in 1,000 like the calibration frames exceeds it.

monitor = UncertaintyMonitor(atoms, file="03-flagged.extxyz", log="03-uncertainty.csv")
dynamics.attach(monitor)
for temperature in np.linspace(300, 2000, 20):
    dynamics.set_temperature(temperature_K=temperature)
    dynamics.run(steps // 20)

# %%
# Each flag knows when it was raised and which atom the members disagree on most.

for flag in monitor.flags:
    when = f"{flag.time_fs:7.1f} fs, {flag.temperature:5.0f} K"
    print(f"{when}: members differ by {flag.largest:.3f} eV/Å on atom {flag.atom}")
print(f"{len(monitor.flags)} frames flagged, above {monitor.threshold:.3f} eV/Å")

log = np.genfromtxt("03-uncertainty.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
figure, axes = plt.subplots(layout="constrained")
axes.semilogy(log["time_fs"], log["max_forces_deviation_eV_per_A"], color="tab:purple", lw=0.8)
axes.axhline(monitor.threshold, color="0.5", ls="--", label="threshold")
axes.plot([f.time_fs for f in monitor.flags], [f.largest for f in monitor.flags], "v", color="tab:red", label="flagged")
axes.set(xlabel="time (fs), heated from 300 to 2,000 K", ylabel="largest forces_deviation (eV/Å)")
axes.legend(frameon=False)
figure.savefig("03-flag-during-md.png", dpi=150)
