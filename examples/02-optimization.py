"""
Geometry optimization and vibrations
====================================

This tutorial relaxes a distorted ethanol with the shipped ensemble and computes its vibrations at the minimum. It
writes ``02-optimization.png`` and ``02-optimization.xyz`` into the current folder.
"""

import argparse

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase.build import molecule
from ase.io import write
from ase.optimize import BFGS
from ase.units import invcm
from ase.vibrations.data import VibrationsData

from schnet_ase import SchNetEnsembleCalculator

parser = argparse.ArgumentParser()
parser.add_argument("--fmax", type=float, default=1e-3, help="eV/Å")
fmax = parser.parse_args().fmax

atoms = molecule("CH3CH2OH")
atoms.rattle(0.03, seed=1)  # Å; much farther off, a potential trained near 500 K may have spurious minima
# In float32, rounding would spoil the finite differences of the forces below.
atoms.calc = SchNetEnsembleCalculator("rmd17-ethanol", dtype="float64")

# %%
# Relax, then save the structure. ``calc.annotate`` copies the ensemble's extra results to where extxyz files save them.

energies, largest = [], []
with BFGS(atoms, logfile=None) as optimizer:
    for _ in optimizer.irun(fmax=fmax, steps=500):
        energies.append(atoms.get_potential_energy())
        largest.append(np.linalg.norm(atoms.get_forces(), axis=1).max())
atoms.calc.annotate(atoms)  # saves the spread over the members, too
write("02-optimization.xyz", atoms, format="extxyz")
if largest[-1] > fmax or atoms.calc.results["forces_deviation"].max() > atoms.calc.calibration.threshold():
    raise SystemExit("not relaxed, or the members disagree: start nearer to the minimum")
print(f"relaxed in {len(energies) - 1} steps; members agree to {atoms.calc.results['energy_std'] * 1000:.2f} meV")

# %%
# Central differences of the forces give the Hessian.

h = 1e-3  # Å
hessian = np.zeros((len(atoms), 3, len(atoms), 3))
for i in range(len(atoms)):
    for k in range(3):
        for sign in (1, -1):
            displaced = atoms.copy()
            displaced.calc = atoms.calc
            displaced.positions[i, k] += sign * h
            hessian[i, k] -= sign * displaced.get_forces() / (2 * h)
frequencies = VibrationsData(atoms, hessian).get_energies()[6:] / invcm
print("wavenumbers (1/cm): " + " ".join(f"{f.real:.0f}" for f in frequencies))

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
left.semilogy(largest, marker=".")
left.axhline(fmax, color="0.5", ls="--", lw=0.8)
left.set(xlabel="step", ylabel="largest force (eV/Å)")
right.vlines(frequencies.real, 0, 1)
right.set(xlabel="wavenumber of a vibration (1/cm)", yticks=[])
figure.savefig("02-optimization.png", dpi=150)
