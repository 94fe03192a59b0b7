"""
A molecule that nobody trained for
==================================

The entry ``organic`` is for molecules that its members have never seen. This tutorial takes five of them by name:
caffeine, ibuprofen, alanine dipeptide, a sulfonamide and a chloroarene. Each is relaxed from RDKit's geometry
(``pip install schnet_ase[organic]``) and then moves at 300 K, driven by one network and watched by all five. The
script writes a picture of each, ``12-caffeine.png`` and so on, into the current folder. On the command line,
``schnet-ase relax organic --smiles "..."`` and ``schnet-ase md organic molecule.xyz --monitor`` do the same.

Each picture shows the relaxed molecule on the left. On the right are the potential energy of the run and the largest
``forces_deviation``, the difference between the members: a run is to be believed while it stays below the threshold.
"""

import argparse

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase import units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.optimize import BFGS
from ase.visualize.plot import plot_atoms

from schnet_ase import SchNetCalculator, UncertaintyMonitor
from schnet_ase.simulation.structures import from_smiles

MOLECULES = {
    "caffeine": "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "ibuprofen": "CC(C)CC1=CC=C(C=C1)C(C)C(=O)O",
    "alanine-dipeptide": "CC(=O)N[C@@H](C)C(=O)NC",
    "benzenesulfonamide": "NS(=O)(=O)c1ccccc1",
    "chlorobenzene": "Clc1ccccc1",
}

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="organic")
parser.add_argument("--steps", type=int, default=4000, help="of 0.5 fs, for each molecule")
arguments = parser.parse_args()

# %%
# The relaxation and the run of one molecule. The monitor looks every ten steps; it writes a line for every look.


def watch(name: str, smiles: str) -> None:
    """Relax a molecule, run it at 300 K, and draw it with its energy and the spread of the members."""
    atoms = from_smiles(smiles)
    atoms.calc = SchNetCalculator(arguments.model)
    with BFGS(atoms, logfile=None) as optimizer:
        optimizer.run(fmax=0.02, steps=500)
    relaxed = atoms.copy()
    rng = np.random.default_rng(0)
    thermalize_momenta(atoms, temperature_K=300, rng=rng)
    dynamics = Langevin(atoms, 0.5 * units.fs, temperature_K=300, friction=0.01 / units.fs, fixcm=False, rng=rng)
    log = f"12-{name}.csv"
    monitor = UncertaintyMonitor(atoms, ensemble=arguments.model, interval=10, file=f"12-{name}.extxyz", log=log)
    dynamics.attach(monitor)
    energies = []
    dynamics.attach(lambda: energies.append(atoms.get_potential_energy()), interval=10)
    dynamics.run(arguments.steps)

    looks = np.genfromtxt(log, delimiter=",", names=True, dtype=None, encoding="utf-8")
    deviation = looks["max_forces_deviation_eV_per_A"]
    print(f"{name}: {len(monitor.flags)} flags; largest deviation {deviation.max():.2f} eV/Å")
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", width_ratios=(1, 1.4))
    plot_atoms(relaxed, left, rotation="20x,30y")
    left.set(title=name.replace("-", " "))
    left.set_axis_off()
    right.plot(np.arange(len(energies)) * 0.005, np.array(energies) - energies[0], color="tab:blue", lw=0.8)
    right.set(xlabel="time (ps)", ylabel="potential energy (eV)")
    spread = right.twinx()
    spread.plot(looks["time_fs"] / 1000, deviation, color="tab:purple", lw=0.8)
    spread.axhline(monitor.threshold, color="tab:purple", ls="--", lw=0.8)
    spread.set(ylim=(0.0, 1.6 * max(monitor.threshold, deviation.max())))
    spread.set_ylabel("largest forces_deviation (eV/Å);\ndashed: threshold", color="tab:purple")
    figure.savefig(f"12-{name}.png", dpi=150)


for name, smiles in MOLECULES.items():
    watch(name, smiles)
