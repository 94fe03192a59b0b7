"""
Vibrations of ethanol
=====================

This tutorial computes the vibrations of ethanol with the shipped ensemble: wavenumbers, zero-point energy and Gibbs
energy, each with the spread over the five members. It writes ``06-vibrations.png``, a table and the Hessian into the
current folder. The command ``schnet-ase vibrations rmd17-ethanol`` does the same.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase.build import molecule
from ase.optimize import BFGS

from schnet_ase import SchNetEnsembleCalculator
from schnet_ase.simulation.thermochemistry import Conditions, thermochemistry
from schnet_ase.simulation.vibrations import vibrations, write_vibrations

parser = argparse.ArgumentParser()
parser.add_argument("--temperature", type=float, default=298.15, help="K")
temperature = parser.parse_args().temperature

# %%
# Vibrations belong to a stationary point. In float32, rounding would spoil the second derivatives.

atoms = molecule("CH3CH2OH")
atoms.calc = SchNetEnsembleCalculator("rmd17-ethanol", dtype="float64")
BFGS(atoms, logfile=None).run(fmax=1e-3)
found = vibrations(atoms)
write_vibrations(found, Path("06-ethanol"))  # a table, ASE's VibrationsData, the structure and a picture
print(f"{len(found.modes)} modes, {len(found.imaginary)} of them imaginary")
for mode in found.modes[-3:]:
    print(f"{mode.wavenumber:8.1f} ± {mode.spread:.1f} 1/cm moves {mode.moves(atoms)}")

# %%
# ASE's thermochemistry of an ideal gas takes the real modes. Each member has its own; their spread is the uncertainty.

gas = thermochemistry(found, Conditions("ideal-gas", temperature))
for name, value in (("zero-point energy", gas.zero_point), ("Gibbs energy", gas.free_energy)):
    print(f"{name}: {value.mean:.4f} ± {value.spread:.4f} eV")

# %%
# The spectrum of the mean, with that of each member, broadened by 10 1/cm.

grid = np.linspace(0.0, 4000.0, 4000)


def broadened(wavenumbers):
    return np.exp(-0.5 * ((grid[:, None] - wavenumbers) / 10.0) ** 2).sum(axis=1)


figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
for k, member in enumerate(found.members):
    axes.plot(grid, broadened(member), color="tab:orange", lw=0.6, label="" if k else "each member")
axes.plot(grid, broadened([mode.wavenumber for mode in found.modes]), color="tab:blue", lw=1.2, label="mean of five")
axes.set(xlabel="wavenumber (1/cm)", ylabel="density of vibrations", yticks=[])
axes.legend(frameon=False)
figure.savefig("06-vibrations.png", dpi=150)
