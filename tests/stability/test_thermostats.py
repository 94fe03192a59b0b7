"""Dynamics at a temperature, on potentials whose mean energies are known."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import NoseHooverChainNVT

from schnet_ase.stability.thermostats import resume, start


class Springs(Calculator):
    """Three atoms held at 1 Å from each other."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - ASE's form

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        vectors = atoms.positions - np.roll(atoms.positions, 1, axis=0)
        lengths = np.linalg.norm(vectors, axis=1)[:, None]
        pull = -30.0 * (lengths - 1.0) * vectors / lengths
        self.results = {"energy": 15.0 * np.sum((lengths - 1.0) ** 2), "forces": pull - np.roll(pull, -1, axis=0)}


def triangle():
    return Atoms("H3", [[0, 0, 0], [1, 0, 0], [0.5, np.sqrt(0.75), 0]], calculator=Springs())


def test_dynamics_have_the_temperature_asked_for():
    """Three modes hold 3/2 kT of kinetic energy; ASE's chain, which reckons with nine, would give them 9/2."""
    atoms = triangle()
    begun = start(atoms, 500.0, seed=0)
    assert begun.degrees == 3
    kinetic = []
    begun.dynamics.attach(lambda: kinetic.append(atoms.get_kinetic_energy()))
    begun.dynamics.run(3000)
    assert np.mean(kinetic[500:]) == pytest.approx(1.5 * units.kB * 500.0, rel=0.1)
    assert np.abs(atoms.get_angular_momentum()).max() < 1e-6


@pytest.mark.parametrize(
    ("atoms", "kind", "degrees"),
    [
        (Atoms("H3", triangle().positions), NoseHooverChainNVT, 3),
        (Atoms("H3", triangle().positions, cell=[9, 9, 9], pbc=True), Langevin, 9),
        (Atoms("H2", [[0, 0, 0], [0, 0, 0.74]]), Langevin, 6),
        (Atoms("CO2", [[0, 0, 0], [0, 0, 1.16], [0, 0, -1.16]]), Langevin, 9),
    ],
)
def test_what_does_not_rotate_freely_gets_langevins_thermostat(atoms, kind, degrees):
    begun = start(atoms, 300.0, seed=0)
    assert isinstance(begun.dynamics, kind)
    assert begun.degrees == degrees


@pytest.mark.parametrize("heated_to", [None, 1500.0])
def test_a_resumed_dynamics_is_that_of_one_that_was_not_interrupted(heated_to):
    atoms = triangle()
    begun = start(atoms, 500.0, 1, heated_to)
    begun.dynamics.run(100)
    state = begun.state()
    begun.dynamics.run(100)
    again = triangle()
    resumed = resume(again, 500.0, state, heated_to)
    resumed.dynamics.run(100)
    assert resumed.dynamics.nsteps == 200
    np.testing.assert_array_equal(again.positions, atoms.positions)
    np.testing.assert_array_equal(again.get_momenta(), atoms.get_momenta())


def test_a_molecule_that_has_become_linear_keeps_its_thermostat():
    """The structure at the start decides, not that of the state."""
    atoms = triangle()
    state = start(atoms, 500.0, 0).state()
    straight = state._replace(positions=np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]))
    assert isinstance(resume(triangle(), 500.0, straight).dynamics, NoseHooverChainNVT)
