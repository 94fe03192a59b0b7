"""
The proton of acetylacetone
===========================

In acetylacetone, a proton sits between two oxygen atoms and changes sides easily. This tutorial finds the path of the
proton with the shipped ensemble: the barrier with the spread over the five members, and the imaginary mode at the
saddle point. It writes ``07-reaction-path.png`` and the images of the path into the current folder. The command
``schnet-ase neb acac FIRST LAST`` does the same for two files.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from schnet_ase import SchNetEnsembleCalculator, list_models
from schnet_ase.simulation.neb import run_neb
from schnet_ase.simulation.vibrations import vibrations

parser = argparse.ArgumentParser()
parser.add_argument("--images", type=int, default=9)
images = parser.parse_args().images

# %%
# The entry's own structure is one end. For the other, the proton moves to the second oxygen; the order of the atoms
# stays.

(card,) = [card for card in list_models() if card.name == "acac"]
first = card.structure.atoms()
first.calc = SchNetEnsembleCalculator("acac", dtype="float64")
oxygens, hydrogens = np.flatnonzero(first.numbers == 8), np.flatnonzero(first.numbers == 1)
distances = first.get_all_distances()
proton = hydrogens[distances[np.ix_(hydrogens, oxygens)].min(axis=1).argmin()]
donor, acceptor = oxygens[distances[proton, oxygens].argsort()]
last = first.copy()
last.set_distance(acceptor, proton, distances[proton, donor], fix=0)

# %%
# A nudged elastic band with a climbing image; both ends are relaxed first. The barrier is a difference of two energies,
# and its spread is that of the members' differences: errors that both energies share cancel.

path = run_neb(first, last, Path("07-images"), images=images)
saddle = path.images[path.saddle]
print(f"barrier: {1000 * saddle.energy_eV:.1f} ± {1000 * saddle.energy_spread_eV:.1f} meV")
print(f"flagged images: {sum(image.flagged for image in path.images)} of {len(path.images)}")

# %%
# At the saddle point, one mode is imaginary, and it moves the proton.

top = path.structures[path.saddle].copy()
top.calc = first.calc
for mode in vibrations(top).imaginary:
    print(f"imaginary mode: {-mode.wavenumber:.0f}i ± {mode.spread:.0f} 1/cm moves {mode.moves(top)}")

shift = [s.get_distance(proton, donor) - s.get_distance(proton, acceptor) for s in path.structures]
energy = 1000 * np.array([image.energy_eV for image in path.images])
spread = 1000 * np.array([image.energy_spread_eV for image in path.images])
deviation = [image.max_forces_deviation_eV_per_A for image in path.images]
figure, (upper, lower) = plt.subplots(2, 1, sharex=True, figsize=(8, 5.2), layout="constrained")
upper.fill_between(shift, energy - spread, energy + spread, alpha=0.2, lw=0, label="spread over five members")
upper.plot(shift, energy, "o-")
upper.set_ylabel("energy (meV)")
upper.legend(frameon=False)
lower.plot(shift, deviation, "o-", color="tab:purple")
lower.axhline(path.threshold, color="0.5", ls="--", label="threshold: 1 in 1,000 frames exceeds it")
lower.set(xlabel="difference of the two O–H distances (Å)", ylabel="largest\nforces_deviation (eV/Å)", ylim=(0, None))
lower.legend(frameon=False)
figure.savefig("07-reaction-path.png", dpi=150)
