"""
Ethanol in water: ML/MM in OpenMM
=================================

This tutorial puts ethanol into a box of TIP3P water. The network computes the forces within the molecule; a force field
computes the water, and the forces between the two (mechanical embedding). It needs ``pip install
"schnet_ase[openmm]"``. The script writes ``10-ml-mm-in-openmm.png`` into the current folder.
"""

import argparse
import io

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase.build import molecule
from openmm import LangevinMiddleIntegrator, Platform, app, unit
from openmmml import MLPotential

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=2000)
steps = parser.parse_args().steps

# %%
# OPLS-AA's charges and radii of ethanol are for its interaction with water; its inner energy is the network's.

OPLS = """
<ForceField>
  <!-- Jorgensen, Maxwell, Tirado-Rives, J. Am. Chem. Soc. 118, 11225 (1996); nm and kJ/mol -->
  <AtomTypes>
    <Type name="eth-C3" class="C3" element="C" mass="12.011"/>
    <Type name="eth-C2" class="C2" element="C" mass="12.011"/>
    <Type name="eth-HC" class="HC" element="H" mass="1.008"/>
    <Type name="eth-O" class="O" element="O" mass="15.999"/>
    <Type name="eth-HO" class="HO" element="H" mass="1.008"/>
  </AtomTypes>
  <Residues>
    <Residue name="ETH">
      <Atom name="C1" type="eth-C2"/>
      <Atom name="C2" type="eth-C3"/>
      <Atom name="O" type="eth-O"/>
      <Atom name="HO" type="eth-HO"/>
      <Atom name="H11" type="eth-HC"/>
      <Atom name="H12" type="eth-HC"/>
      <Atom name="H21" type="eth-HC"/>
      <Atom name="H22" type="eth-HC"/>
      <Atom name="H23" type="eth-HC"/>
      <Bond atomName1="C1" atomName2="C2"/>
      <Bond atomName1="C1" atomName2="O"/>
      <Bond atomName1="O" atomName2="HO"/>
      <Bond atomName1="C1" atomName2="H11"/>
      <Bond atomName1="C1" atomName2="H12"/>
      <Bond atomName1="C2" atomName2="H21"/>
      <Bond atomName1="C2" atomName2="H22"/>
      <Bond atomName1="C2" atomName2="H23"/>
    </Residue>
  </Residues>
  <NonbondedForce coulomb14scale="0.8333333333333334" lj14scale="0.5">
    <Atom type="eth-C3" charge="-0.180" sigma="0.350" epsilon="0.276144"/>
    <Atom type="eth-C2" charge="0.145" sigma="0.350" epsilon="0.276144"/>
    <Atom type="eth-HC" charge="0.060" sigma="0.250" epsilon="0.125520"/>
    <Atom type="eth-O" charge="-0.683" sigma="0.312" epsilon="0.711280"/>
    <Atom type="eth-HO" charge="0.418" sigma="0.0" epsilon="0.0"/>
  </NonbondedForce>
</ForceField>
"""

# %%
# OpenMM finds the residue by the elements and bonds of its atoms.

ethanol = molecule("CH3CH2OH")
topology = app.Topology()
residue = topology.addResidue("ETH", topology.addChain())
names = ["C2", "C1", "O", "HO", "H11", "H12", "H21", "H22", "H23"]
atoms = [
    topology.addAtom(name, app.Element.getByAtomicNumber(int(number)), residue)
    for name, number in zip(names, ethanol.numbers, strict=True)
]
for first, second in ((0, 1), (1, 2), (2, 3), (1, 4), (1, 5), (0, 6), (0, 7), (0, 8)):
    topology.addBond(atoms[first], atoms[second])

forcefield = app.ForceField(io.StringIO(OPLS), "amber14/tip3p.xml")
modeller = app.Modeller(topology, ethanol.positions * unit.angstrom)
modeller.addSolvent(forcefield, model="tip3p", boxSize=(2.2, 2.2, 2.2) * unit.nanometer)
classical = forcefield.createSystem(
    modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer, constraints=app.HBonds
)

# %%
# The model says that it has no long-range interactions, so that a mixed system needs no option.

potential = MLPotential("schnet_ase", model="rmd17-ethanol")
mixed = potential.createMixedSystem(modeller.topology, classical, list(range(len(ethanol))))

# %%
# Half a femtosecond: the bonds of ethanol are no longer constrained. ``Reference`` computes in double precision,
# ``CPU`` in single precision and faster.

integrator = LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 0.5 * unit.femtosecond)
simulation = app.Simulation(modeller.topology, mixed, integrator, Platform.getPlatformByName("CPU"))
simulation.context.setPositions(modeller.positions)
simulation.minimizeEnergy(maxIterations=200)
simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)

lengths = []
for _ in range(max(1, steps // 10)):
    simulation.step(10)
    positions = simulation.context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    lengths.append([np.linalg.norm(positions[2] - positions[3]), np.linalg.norm(positions[1] - positions[2])])
lengths = np.array(lengths)
print(f"{modeller.topology.getNumAtoms()} atoms, of which the network moves {len(ethanol)}")
print(f"mean O–H {lengths[:, 0].mean():.3f} Å, C–O {lengths[:, 1].mean():.3f} Å")

figure, axes = plt.subplots(layout="constrained")
times = 0.005 * np.arange(1, len(lengths) + 1)
axes.plot(times, lengths[:, 0], lw=0.8, label="O–H")
axes.plot(times, lengths[:, 1], lw=0.8, label="C–O")
axes.set(xlabel="time (ps)", ylabel="length of the bond (Å)")
axes.legend(frameon=False)
figure.savefig("10-ml-mm-in-openmm.png", dpi=150)
