"""Stress: the energy's derivative by strain, wherever the cell has a volume."""

import threading
import uuid
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_stress
from ase.calculators.socketio import SocketClient, SocketIOCalculator
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from schnet_ase import SchNetCalculator
from tests.support.calculations import calculated
from tests.support.factories import CalculatorFactory, ModelFactory


@pytest.mark.parametrize("pbc", [False, (True, False, False), (False, True, True), (True, True, True)])
def test_stress_is_the_strain_derivative_wherever_the_cell_has_a_volume(
    make_calculator: CalculatorFactory, crystal: Atoms, pbc: bool | tuple[bool, bool, bool]
) -> None:
    crystal.pbc = pbc
    atoms = calculated(crystal, make_calculator(dtype="float64"))
    expected = calculate_numerical_stress(atoms, eps=1e-5)
    np.testing.assert_allclose(atoms.get_stress(), expected, rtol=0.0, atol=1e-6 * np.abs(expected).max())


def test_stress_of_a_slab_times_its_height_does_not_know_the_vacuum(
    make_calculator: CalculatorFactory, crystal: Atoms
) -> None:
    forces_per_length = []
    for height in (12.0, 30.0):
        slab = crystal.copy()
        slab.pbc = (True, True, False)
        slab.cell[2] = (0.0, 0.0, height)
        forces_per_length.append(height * calculated(slab, make_calculator(dtype="float64")).get_stress())
    np.testing.assert_allclose(*forces_per_length, rtol=1e-9, atol=1e-9)


FLAT = [[3.0, 0.0, 0.0], [0.7, 3.2, 0.0], [0.1, 0.1 * 3.2 / 0.7, 0.0]]


@pytest.mark.parametrize(("cell", "pbc"), [(None, False), ([3.0, 0, 0], (True, False, False)), (FLAT, False)])
def test_stress_needs_a_volume(
    make_calculator: CalculatorFactory, crystal: Atoms, cell: Any, pbc: bool | tuple[bool, bool, bool]
) -> None:
    crystal.set_cell(cell)
    crystal.pbc = pbc
    atoms = calculated(crystal, make_calculator())
    with pytest.raises(PropertyNotImplementedError, match="a cell that has a volume"):
        atoms.get_stress()
    with pytest.raises(PropertyNotImplementedError, match="a cell that has a volume"):
        atoms.calc.get_property("stress", atoms)
    with pytest.raises(PropertyNotImplementedError, match="a cell that has a volume"):
        atoms.get_properties(["energy", "stress"])
    assert "stress" not in atoms.calc.results


def in_plane_slopes(atoms: Atoms) -> list[float]:
    """Of the energy with strains xx, yy and xy, eV."""
    slopes = []
    for i, j in ((0, 0), (1, 1), (0, 1)):
        energies = []
        for strain in (-1e-4, 1e-4):
            strained = atoms.copy()
            strained.calc = atoms.calc
            deformation = np.eye(3)
            deformation[i, j] += strain
            strained.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
            energies.append(strained.get_potential_energy())
        slopes.append(abs(energies[1] - energies[0]) / 2e-4)
    return slopes


def test_a_slab_relaxes_in_its_plane(make_model: ModelFactory, crystal: Atoms) -> None:
    crystal.pbc = (True, True, False)
    crystal.cell[2] = (0.0, 0.0, 12.0)
    model = make_model(1)
    model.scale.fill_(0.2)
    atoms = calculated(crystal, SchNetCalculator(model, engine="autograd", dtype="float64"))
    energy = atoms.get_potential_energy()
    assert min(in_plane_slopes(atoms)) > 0.05
    # The mask is that of the strain's components xx yy zz yz xz xy.
    assert BFGS(FrechetCellFilter(atoms, mask=[1, 1, 0, 0, 0, 1]), logfile=None).run(fmax=0.002, steps=300)
    assert atoms.get_potential_energy() < energy
    assert max(in_plane_slopes(atoms)) < 0.01
    assert np.abs(atoms.get_forces()).max() < 0.002
    assert atoms.cell[2].tolist() == [0.0, 0.0, 12.0]


@pytest.mark.parametrize("pbc", [False, (True, True, False), True])
def test_a_socket_client_of_ase_serves_energy_forces_and_stress(
    make_calculator: CalculatorFactory, crystal: Atoms, pbc: bool | tuple[bool, bool, bool]
) -> None:
    """ASE's client asks for stress where any direction is periodic; the one that `PySocketIOClient` starts, always."""
    crystal.pbc = pbc
    expected = calculated(crystal, make_calculator(dtype="float64"))
    name = f"schnet_ase_{uuid.uuid4().hex[:12]}"
    with SocketIOCalculator(unixsocket=name, timeout=60.0) as server:
        served = calculated(crystal, make_calculator(dtype="float64"))
        client = SocketClient(unixsocket=name, timeout=60.0)
        stress = None if np.any(pbc) else True
        worker = threading.Thread(target=lambda: list(client.irun(served, use_stress=stress)), daemon=True)
        worker.start()
        driven = calculated(crystal, server)
        for _ in range(2):
            assert driven.get_potential_energy() == pytest.approx(expected.get_potential_energy(), abs=1e-9)
            np.testing.assert_allclose(driven.get_forces(), expected.get_forces(), rtol=0.0, atol=1e-9)
            if np.any(pbc):  # else ASE's server drops it
                np.testing.assert_allclose(driven.get_stress(), expected.get_stress(), rtol=0.0, atol=1e-9)
            for atoms in (driven, expected):
                atoms.set_cell(1.01 * atoms.cell.array, scale_atoms=True)
    worker.join(60.0)
    assert not worker.is_alive()


def test_results_outlive_a_refused_stress(make_calculator: CalculatorFactory, ethanol: Atoms) -> None:
    atoms = calculated(ethanol, make_calculator())
    energy = atoms.get_potential_energy()
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
    assert atoms.calc.results["energy"] == energy
