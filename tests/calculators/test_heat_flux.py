"""The heat flux is the time derivative of the sum of positions times energies, also across the borders of a cell."""

import numpy as np
import pytest
from ase import Atoms

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator
from schnet_ase.calculators.fixed import FixedCalculator
from tests.support.factories import ModelFactory

FIELDS = [{}, {"activation": "silu", "norm": "layer"}, {"prior": "zbl"}, {"n_interactions": 3, "envelope": "cosine"}]


@pytest.fixture(params=FIELDS, ids=str)
def ensemble(request: pytest.FixtureRequest, make_model: ModelFactory) -> FixedCalculator:
    members = [make_model(seed, **request.param) for seed in range(2)]
    return SchNetEnsembleCalculator(members, engine="autograd", dtype="float64")


def set_velocities(atoms: Atoms) -> None:
    atoms.set_velocities(np.random.default_rng(3).normal(0.0, 0.02, (len(atoms), 3)))


def barycentre(calc: FixedCalculator, atoms: Atoms) -> np.ndarray:
    """Sum of positions times energies, eV Å."""
    kinetic = 0.5 * atoms.get_masses() * np.sum(atoms.get_velocities() ** 2, axis=1)
    return (kinetic + calc.get_property("energies", atoms)) @ atoms.positions


def test_that_of_a_molecule_is_how_its_energy_moves(ensemble: FixedCalculator, ethanol: Atoms) -> None:
    set_velocities(ethanol)
    ethanol.positions *= 0.7
    for member in ensemble._evaluator.networks.models:
        member.reference /= 100.0  # 500 eV would be nothing but rounding in the differences
    velocities = ethanol.get_velocities()
    accelerations = ensemble.get_forces(ethanol) / ethanol.get_masses()[:, None]
    expected = np.zeros(3)
    for k, weight in ((1, 8.0), (-1, -8.0), (2, -1.0), (-2, 1.0)):
        time = 1e-3 * k
        moved = ethanol.copy()
        moved.positions += time * velocities
        moved.set_velocities(velocities + time * accelerations)
        expected += weight / 12e-3 * barycentre(ensemble, moved)
    flux = ensemble.get_heat_flux(ethanol)
    np.testing.assert_allclose(flux.potential + flux.convective, expected, rtol=0.0, atol=1e-7)
    assert np.abs(flux.potential).max() > 1e-3


def test_a_crystal_has_that_of_each_of_its_cells(ensemble: FixedCalculator, crystal: Atoms) -> None:
    """The cell is smaller than the cutoff; in the larger one other pairs cross the borders."""
    set_velocities(crystal)
    crystal.set_cell(0.6 * crystal.cell, scale_atoms=True)
    cell, cells = ensemble.get_heat_flux(crystal), ensemble.get_heat_flux(crystal * (2, 3, 1))
    np.testing.assert_allclose(cells.potential, 6.0 * cell.potential, rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(cells.convective, 6.0 * cell.convective, rtol=0.0, atol=1e-9)


def test_a_molecule_across_a_border_has_that_of_the_molecule(ensemble: FixedCalculator, ethanol: Atoms) -> None:
    set_velocities(ethanol)
    alone = ensemble.get_heat_flux(ethanol)
    boxed = ethanol.copy()
    boxed.set_cell([[20.0, 0.0, 0.0], [3.0, 21.0, 0.0], [1.0, 2.0, 22.0]])
    boxed.pbc = True
    boxed.positions += [0.3, 20.5, 21.7]
    boxed.wrap()
    assert np.ptp(boxed.positions, axis=0).max() > 10.0
    np.testing.assert_allclose(ensemble.get_heat_flux(boxed).potential, alone.potential, rtol=0.0, atol=1e-12)


def test_atoms_at_rest_have_none(make_model: ModelFactory, crystal: Atoms) -> None:
    flux = SchNetCalculator(make_model(0), engine="autograd").get_heat_flux(crystal)
    assert not flux.potential.any()
    assert not flux.convective.any()
