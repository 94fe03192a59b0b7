"""OpenMM-ML's potential: energies and forces of ASE's, pure and mixed systems."""

import numpy as np
import pytest
from ase import Atoms, units

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator, structure

pytest.importorskip("openmmml", reason="pip install openmm openmmml")

import openmm
from openmm import app, unit
from openmmml import MLPotential

KJ_MOL = units.kJ / units.mol


@pytest.fixture(scope="module")
def atoms() -> Atoms:
    return structure("rmd17-ethanol")


def topology_of(atoms: Atoms) -> app.Topology:
    topology = app.Topology()
    residue = topology.addResidue("ETH", topology.addChain())
    for n, atom in enumerate(atoms):
        topology.addAtom(f"{atom.symbol}{n}", app.Element.getByAtomicNumber(int(atom.number)), residue)
    if atoms.pbc.any():
        topology.setPeriodicBoxVectors(atoms.cell.array * unit.angstrom)
    return topology


def simulate(topology: app.Topology, system: openmm.System, platform: str) -> app.Simulation:
    integrator = openmm.VerletIntegrator(0.5 * unit.femtosecond)
    return app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName(platform))


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
@pytest.mark.parametrize("ensemble", [False, True])
def test_energies_and_forces_are_those_of_ase(atoms: Atoms, platform: str, ensemble: bool) -> None:
    topology, kind = topology_of(atoms), SchNetEnsembleCalculator if ensemble else SchNetCalculator
    system = MLPotential("schnet_ase", model="rmd17-ethanol", ensemble=ensemble).createSystem(topology)
    simulation = simulate(topology, system, platform)
    simulation.context.setPositions(atoms.positions * unit.angstrom)
    for _ in range(2):
        state = simulation.context.getState(energy=True, forces=True, positions=True)
        moved = Atoms(atoms.numbers, state.getPositions(asNumpy=True).value_in_unit(unit.angstrom))
        moved.calc = kind("rmd17-ethanol")
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) * KJ_MOL
        forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.angstrom) * KJ_MOL
        assert energy == pytest.approx(moved.get_potential_energy(), rel=1e-9)
        np.testing.assert_allclose(forces, moved.get_forces(), rtol=0.0, atol=1e-4)
        simulation.step(5)


def test_periodic_liquid() -> None:
    water = structure("water")
    topology = topology_of(water)
    system = MLPotential("schnet_ase", model="water").createSystem(topology)
    simulation = simulate(topology, system, "Reference")
    simulation.context.setPositions(water.positions * unit.angstrom)
    energy = simulation.context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    water.calc = SchNetCalculator("water")
    assert energy * KJ_MOL == pytest.approx(water.get_potential_energy(), rel=1e-9)


def test_part_of_a_periodic_system_needs_no_option(atoms: Atoms) -> None:
    # Two molecules; the model has one, and the other has no force: the energy is the model's.
    pair = atoms + atoms
    pair.positions[len(atoms) :] += 10.0
    pair.set_cell([30.0, 30.0, 30.0])
    pair.pbc = True
    topology, n = topology_of(pair), len(atoms)
    plain = openmm.System()
    plain.setDefaultPeriodicBoxVectors(*topology.getPeriodicBoxVectors())
    nonbonded = openmm.NonbondedForce()
    nonbonded.setNonbondedMethod(openmm.NonbondedForce.PME)
    for atom in topology.atoms():
        plain.addParticle(atom.element.mass)
        nonbonded.addParticle(0.0, 0.3, 0.0)
    plain.addForce(nonbonded)
    mixed = MLPotential("schnet_ase", model="rmd17-ethanol").createMixedSystem(topology, plain, list(range(n)))
    simulation = simulate(topology, mixed, "Reference")
    simulation.context.setPositions(pair.positions * unit.angstrom)
    state = simulation.context.getState(energy=True, forces=True)
    atoms.calc = SchNetCalculator("rmd17-ethanol")
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) * KJ_MOL
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-9)
    assert not state.getForces(asNumpy=True)[n:].any()
