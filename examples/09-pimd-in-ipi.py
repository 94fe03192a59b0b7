"""
Path integrals of ethanol in i-PI
=================================

This tutorial compares classical nuclei with quantum ones at 300 K: i-PI moves ethanol with 1 and with 32 beads. It
needs ``pip install "schnet_ase[ipi]"``. The script writes ``09-pimd-in-ipi.png`` and i-PI's files into
the current folder.
"""

import argparse
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from schnet_ase import structure

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=2000)
steps = parser.parse_args().steps

# %%
# i-PI loads the driver in its own process here, by the path that ``schnet-ase ipi path`` prints. The page on i-PI shows
# drivers that connect by a socket, of which several share the beads.

INPUT = """
<simulation verbosity='low'>
  <output prefix='{name}'>
    <properties stride='5'>[step, potential{{electronvolt}}, kinetic_cv{{electronvolt}}]</properties>
    <trajectory filename='positions' stride='5' cell_units='angstrom'>positions{{angstrom}}</trajectory>
  </output>
  <total_steps>{steps}</total_steps>
  <prng><seed>1</seed></prng>
  <ffdirect name='schnet'>
    <pes>custom</pes>
    <pes_path>{driver}</pes_path>
    <parameters>{{template: ethanol.xyz, model: rmd17-ethanol}}</parameters>
  </ffdirect>
  <system>
    <initialize nbeads='{beads}'>
      <file mode='ase'>ethanol.xyz</file>
      <cell mode='abc' units='angstrom'>[30, 30, 30]</cell>
      <velocities mode='thermal' units='kelvin'>300</velocities>
    </initialize>
    <forces><force forcefield='schnet'/></forces>
    <ensemble><temperature units='kelvin'>300</temperature></ensemble>
    <motion mode='dynamics'>
      <dynamics mode='nvt'>
        <timestep units='femtosecond'>0.25</timestep>
        <thermostat mode='pile_l'><tau units='femtosecond'>100</tau></thermostat>
      </dynamics>
    </motion>
  </system>
</simulation>
"""

ethanol = structure("rmd17-ethanol")
ethanol.write("ethanol.xyz")
oxygen = ethanol.symbols.search("O")[0]
hydrogens = ethanol.symbols.search("H")
proton = hydrogens[np.argmin(ethanol.get_distances(oxygen, hydrogens))]
driver = find_spec("schnet_ase.bridges.ipi_driver").origin

# %%
# Zero-point motion stretches O–H far beyond what 300 K do to a classical proton, and raises the kinetic energy.

figure, axes = plt.subplots(layout="constrained")
for name, beads in (("classical", 1), ("quantum", 32)):
    Path(f"{name}.xml").write_text(INPUT.format(name=name, beads=beads, steps=steps, driver=driver))
    program = Path(sys.executable).with_name("i-pi")
    subprocess.run([program, f"{name}.xml"], check=True, stdout=subprocess.DEVNULL)
    lengths = []
    for file in sorted(Path().glob(f"{name}.positions_*.xyz")):
        lines = [line.split()[1:] for line in file.read_text().splitlines() if len(line.split()) == 4]
        frames = np.array(lines, dtype=float).reshape(-1, len(ethanol), 3)
        lengths.append(np.linalg.norm(frames[:, oxygen] - frames[:, proton], axis=1))
    lengths = np.array(lengths)[:, len(lengths[0]) // 4 :]  # the first quarter is for equilibration
    kinetic = np.loadtxt(f"{name}.out")[:, 2]
    kinetic = kinetic[len(kinetic) // 4 :].mean()
    print(f"{name}: O–H {lengths.mean():.3f} ± {lengths.std():.3f} Å, kinetic energy {kinetic:.3f} eV")
    axes.hist(lengths.ravel(), bins=40, density=True, histtype="step", label=f"{name}, {beads} bead{'s' * (beads > 1)}")
axes.set(xlabel="length of O–H (Å)", ylabel="probability density (1/Å)")
axes.legend(frameon=False)
figure.savefig("09-pimd-in-ipi.png", dpi=150)
