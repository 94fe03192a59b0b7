"""D3(BJ) dispersion: against its library's own calculator and finite differences, in every periodicity."""

import copy
import pickle
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from dftd3.ase import DFTD3

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator
from schnet_ase.errors import SchNetError, StructureError
from schnet_ase.geometry.neighbors import half_neighbor_list
from schnet_ase.geometry.system import geometry
from schnet_ase.priors.dispersion import Dispersion
from schnet_ase.testing import check_calculator
from schnet_ase.training.config import load_config
from tests.support.frames import TOML, write_run

SMALL = {"n_features": 8, "readout_features": 8, "n_rbf": 8}

JUMPS = 1e-4
"""eV/Å that differences of energies over 0.1 mÅ may be off in a crystal: the library's coordination numbers end at a
sharp cutoff of 40 Bohr, at which an energy jumps by some 1e-8 eV."""


class Alone(Calculator):
    """The term as a calculator."""

    implemented_properties = ("energy", "free_energy", "energies", "forces", "stress")

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        system = geometry(self.atoms)
        pairs = half_neighbor_list(system.positions, system.cell, system.pbc, 4.0)
        energies, forces, virial = Dispersion("pbe")(system, pairs)
        energy = energies.sum()
        self.results = {"energy": energy, "free_energy": energy, "energies": energies, "forces": forces}
        if self.atoms.cell.rank == 3:
            self.results["stress"] = virial.flat[[0, 4, 8, 5, 2, 1]] / self.atoms.get_volume()


@pytest.fixture
def slab(crystal):
    """Periodic in two directions, the third without a vector; atoms on either side of zero."""
    crystal.pbc = (True, True, False)
    crystal.positions[:, 2] -= 1.5
    crystal.cell[2] = 0.0
    return crystal


def test_it_is_that_of_the_library(ethanol, crystal):
    for atoms in (ethanol, crystal):
        theirs = DFTD3(method="pbe", damping="d3bj")
        ours = Alone()
        assert ours.get_potential_energy(atoms) == pytest.approx(theirs.get_potential_energy(atoms), rel=1e-12)
        np.testing.assert_allclose(ours.get_forces(atoms), theirs.get_forces(atoms), atol=1e-12)
        assert ours.results["energies"].sum() == pytest.approx(ours.results["energy"], rel=1e-12)
    np.testing.assert_allclose(ours.get_stress(crystal), theirs.get_stress(crystal), atol=1e-12)


@pytest.mark.parametrize("name", ["ethanol", "crystal", "slab"])
def test_forces_are_minus_the_gradient(request, name):
    atoms = request.getfixturevalue(name)
    atoms.calc = Alone()
    bound = JUMPS if atoms.pbc.any() else 1e-7
    np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-4), atol=bound)


def test_stress_is_the_strain_derivative(crystal):
    for atoms in (crystal, Atoms(crystal.numbers, crystal.positions, cell=crystal.cell[[1, 0, 2]], pbc=True)):
        atoms.calc = Alone()  # the second cell is left-handed
        np.testing.assert_allclose(atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-3), atol=1e-5)


def test_a_vector_that_is_not_periodic_does_not_matter(slab):
    """The library itself wraps atoms along it, which tears a slab apart."""
    energies = []
    for height in (0.0, 2.0, 5.0, 80.0):
        slab.cell[2, 2] = height
        energies.append(Alone().get_potential_energy(slab))
    np.testing.assert_allclose(energies, energies[0], rtol=1e-9)
    # A slab of many cells without periodicity has it in its middle.
    patch = slab.repeat((9, 9, 1))
    patch.pbc = False
    by_atom = Alone().get_property("energies", patch)
    middle = len(slab) * (9 * 4 + 4)
    assert by_atom[middle : middle + len(slab)].sum() == pytest.approx(energies[0], rel=0.01)


@pytest.mark.parametrize("engine", ["autograd", "compiled"])
def test_models_have_it_beside_the_network(make_model, engine, ethanol, crystal):
    model, bare = (make_model(0, **SMALL, prior="zbl", dispersion=method) for method in ("pbe", None))
    ours, theirs = (SchNetCalculator(m, engine=engine, dtype="float64") for m in (model, bare))
    for atoms in (ethanol, crystal):
        part = Alone()
        difference = ours.get_potential_energy(atoms) - theirs.get_potential_energy(atoms)
        assert difference == pytest.approx(part.get_potential_energy(atoms), abs=1e-9)
        np.testing.assert_allclose(ours.get_forces(atoms) - theirs.get_forces(atoms), part.get_forces(atoms), atol=1e-9)
        check_calculator(ours, atoms, gradient_tolerance=1e-3 if atoms.pbc.any() else None)  # see JUMPS


def test_calculators_are_copied_and_pickled(make_model, ethanol):
    calculator = SchNetEnsembleCalculator([make_model(seed, **SMALL, dispersion="pbe") for seed in range(2)])
    expected = calculator.get_potential_energy(ethanol)
    for other in (copy.deepcopy(calculator), pickle.loads(pickle.dumps(calculator))):
        other.reset()
        assert other.get_potential_energy(ethanol) == pytest.approx(expected, abs=1e-6)


def test_one_atom_alone_has_none():
    part = Dispersion("pbe")(
        geometry(Atoms("O")), half_neighbor_list(np.zeros((1, 3)), np.eye(3), np.zeros(3, bool), None)
    )
    assert not part.energies.any()
    assert not part.forces.any()


def test_what_the_library_has_no_parameters_for():
    for method in ("nonsense", ""):
        with pytest.raises(SchNetError, match=f"dispersion is '{method}', for which dftd3 has no") as caught:
            Dispersion(method)
        assert "\n" not in str(caught.value)
    atoms = Atoms([104, 8], [[0, 0, 0], [0, 0, 2.0]])
    with pytest.raises(StructureError, match="dispersion is not known for Rf"):
        Dispersion("pbe")(geometry(atoms), half_neighbor_list(atoms.positions, np.eye(3), np.zeros(3, bool), None))


def test_without_the_package(make_model, monkeypatch, tmp_path, mistake):
    monkeypatch.setitem(sys.modules, "dftd3.interface", None)
    with pytest.raises(SchNetError, match=r"pip install 'schnet_ase\[dispersion\]'"):
        SchNetCalculator(make_model(0, **SMALL, dispersion="pbe"))
    file = write_run(tmp_path, TOML.replace("[model]", '[model]\ndispersion = "pbe"'))
    assert "pip install 'schnet_ase[dispersion]'" in mistake("train", file, "--output", tmp_path / "run")


def test_a_configuration_that_names_no_functional(tmp_path, mistake):
    file = write_run(tmp_path, TOML.replace("[model]", '[model]\ndispersion = "nonsense"'))
    line = mistake("train", file, "--output", tmp_path / "run")
    assert f"{file}: dispersion is 'nonsense', for which dftd3 has no D3(BJ) parameters" in line
    file.write_text(TOML.replace("[model]", '[model]\ndispersion = "pbe"\nprior = "zbl"'))
    assert (load_config(file).model.prior, load_config(file).model.dispersion) == ("zbl", "pbe")
    file.write_text(TOML.replace("[model]", '[model]\nprior = "zlb"'))
    assert "key model.prior is 'zlb'; input should be 'zbl'" in mistake("train", file, "--output", tmp_path / "run")
