"""Both calculators meet the physics contract, whatever the system, precision and engine."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.md.verlet import VelocityVerlet

from schnet_ase import SchNetCalculator
from schnet_ase.testing import check_calculator
from tests.support.calculations import DTYPES, ENGINES, calculated, set_temperature
from tests.support.factories import CalculatorFactory, ModelFactory


@pytest.mark.parametrize("system", ["ethanol", "crystal"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_contract(make_calculator: CalculatorFactory, request: pytest.FixtureRequest, system: str, dtype: str) -> None:
    check_calculator(make_calculator(dtype=dtype), request.getfixturevalue(system))


@pytest.mark.parametrize("fields", [{"envelope": "cosine"}, {"envelope": "none"}, {"norm": "layer"}], ids=str)
def test_contract_of_other_configs(
    make_calculator: CalculatorFactory, ethanol: Atoms, fields: dict[str, object]
) -> None:
    check_calculator(make_calculator(fields, dtype="float64"), ethanol)


@pytest.mark.parametrize("pbc", [(True, False, False), (True, True, False)])
def test_contract_where_some_directions_are_periodic(
    make_calculator: CalculatorFactory, crystal: Atoms, pbc: tuple[bool, bool, bool]
) -> None:
    crystal.pbc = pbc
    check_calculator(make_calculator(dtype="float64"), crystal)


def test_contract_of_one_atom(make_calculator: CalculatorFactory) -> None:
    check_calculator(make_calculator(dtype="float64"), Atoms("N", [[1.0, 2.0, 3.0]]))


def test_contract_of_one_atom_among_its_images(make_calculator: CalculatorFactory) -> None:
    cell = [[2.4, 0, 0], [0.6, 2.5, 0], [0.3, -0.4, 2.7]]
    check_calculator(make_calculator(dtype="float64"), Atoms("N", cell=cell, pbc=True))


def test_a_lone_atom_has_its_energy_and_no_force(make_calculator: CalculatorFactory) -> None:
    lone = calculated(Atoms("N"), make_calculator())
    boxed = calculated(Atoms("N", cell=[20.0] * 3, pbc=True), make_calculator())
    assert (lone.get_forces() == 0.0).all()
    assert (boxed.get_stress() == 0.0).all()
    assert boxed.get_potential_energy() == lone.get_potential_energy()


def test_atoms_without_neighbours(make_calculator: CalculatorFactory) -> None:
    calc = make_calculator(dtype="float64")
    lone = calc.get_potential_energy(Atoms("N"))
    apart = calculated(Atoms("N2", [[0, 0, 0], [0, 0, 9.0]], cell=[20.0] * 3, pbc=True), calc)
    assert (apart.get_forces() == 0.0).all()
    assert apart.get_potential_energy() == pytest.approx(2.0 * lone, abs=1e-10)


@pytest.mark.parametrize("engine", ENGINES)
def test_energy_is_conserved_to_second_order_in_the_time_step(make_model: ModelFactory, engine: str) -> None:
    model = make_model(5, cutoff=5.0)
    model.scale.fill_(10.0)  # forces of a few eV/Å, as in a molecule
    calc = SchNetCalculator(model, engine=engine, dtype="float64")

    def deviation(steps_per_fs: int) -> float:
        atoms = molecule("CH3CH2OH")
        set_temperature(atoms, 300.0)
        atoms.calc = calc
        energies = [atoms.get_total_energy()]
        dynamics = VelocityVerlet(atoms, units.fs / steps_per_fs)
        for _ in range(15):
            dynamics.run(steps_per_fs)
            energies.append(atoms.get_total_energy())
        return float(np.std(energies))

    coarse, middle, fine = deviation(1), deviation(2), deviation(4)
    assert coarse > 1e-5
    assert coarse / middle == pytest.approx(4.0, rel=0.2)
    assert middle / fine == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("skin", [0.0, 0.3, 3.0])
def test_skin_does_not_change_results(make_model: ModelFactory, crystal: Atoms, skin: float, engine: str) -> None:
    model = make_model()
    reference = SchNetCalculator(model, engine=engine, dtype="float64")
    calc = SchNetCalculator(model, engine=engine, dtype="float64", skin=skin)
    for seed in range(3):
        crystal.rattle(0.1, seed=seed)
        crystal.wrap()
        np.testing.assert_allclose(calc.get_forces(crystal), reference.get_forces(crystal), rtol=0.0, atol=1e-10)


@pytest.mark.parametrize("engine", ENGINES)
def test_float32_is_near_float64(make_model: ModelFactory, crystal: Atoms, engine: str) -> None:
    model = make_model()
    single, double = (
        calculated(crystal, SchNetCalculator(model, engine=engine, dtype=dtype)) for dtype in ("float32", "float64")
    )
    assert single.get_potential_energy() != double.get_potential_energy()
    assert single.get_potential_energy() == pytest.approx(double.get_potential_energy(), abs=1e-4)
    np.testing.assert_allclose(single.get_forces(), double.get_forces(), rtol=0.0, atol=1e-4)
