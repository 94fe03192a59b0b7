"""Second derivatives, virials and descriptors against finite differences and symmetries."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from ase.stress import voigt_6_to_full_3x3_stress

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator, structure
from schnet_ase.errors import StructureError
from tests.support.factories import CalculatorFactory, ModelFactory

PBC = [(False, False, False), (True, True, False), (True, True, True)]


def by_differences(calc: Calculator, atoms: Atoms, step: float) -> np.ndarray:
    """Minus the derivative of the forces, to the fourth order in `step`, Å."""
    rows = []
    for i, a in np.ndindex(len(atoms), 3):
        row = np.zeros(3 * len(atoms))
        for k, weight in ((1, 8.0), (-1, -8.0), (2, -1.0), (-2, 1.0)):
            moved = atoms.copy()
            moved.positions[i, a] += k * step
            row -= weight / (12.0 * step) * calc.get_forces(moved).ravel()
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("pbc", PBC, ids=str)
@pytest.mark.parametrize("prior", [None, "zbl"])
def test_hessian_is_the_derivative_of_the_forces(
    make_calculator: CalculatorFactory, crystal: Atoms, prior: str | None, pbc: tuple[bool, bool, bool]
) -> None:
    crystal.pbc = pbc
    crystal.set_cell(0.59 * crystal.cell, scale_atoms=True)  # nuclei repel, and no pair is just at the cutoff
    calc = make_calculator({"prior": prior}, dtype="float64")
    hessian = calc.get_hessian(crystal)
    assert hessian.shape == (12, 12)
    assert hessian.dtype == np.float64
    np.testing.assert_array_equal(hessian, hessian.T)
    np.testing.assert_allclose(hessian, by_differences(calc, crystal, 1e-3), rtol=0.0, atol=1e-6)
    # Moving all atoms together changes nothing.
    np.testing.assert_allclose(hessian.reshape(12, 4, 3).sum(axis=1), 0.0, atol=1e-10)
    assert np.abs(hessian).max() > 0.1


def test_the_repulsion_is_in_it(make_model: ModelFactory, crystal: Atoms) -> None:
    crystal.set_cell(0.59 * crystal.cell, scale_atoms=True)
    without, with_prior = (SchNetCalculator(make_model(0, prior=p)).get_hessian(crystal) for p in (None, "zbl"))
    assert np.abs(with_prior - without).max() > 0.1


def test_dispersion_is_in_it(make_model: ModelFactory) -> None:
    pytest.importorskip("dftd3")
    atoms = Atoms("OCH", [[0.0, 0.0, 0.0], [0.2, 2.1, 0.1], [1.9, 0.3, -0.4]])
    calc = SchNetCalculator(make_model(0, dispersion="pbe"), engine="autograd", dtype="float64")
    np.testing.assert_allclose(calc.get_hessian(atoms), by_differences(calc, atoms, 2e-3), rtol=0.0, atol=1e-6)


def test_it_does_not_depend_on_engine_and_dtype(make_model: ModelFactory, ethanol: Atoms) -> None:
    members = [make_model(seed) for seed in range(2)]
    first, *others = (
        SchNetEnsembleCalculator(members, engine=engine, dtype=dtype).get_hessian(ethanol)
        for engine, dtype in (("autograd", "float64"), ("autograd", "float32"), ("compiled", "float32"))
    )
    for other in others:
        np.testing.assert_allclose(other, first, rtol=0.0, atol=1e-10)


def test_that_of_an_ensemble_is_that_of_the_mean(make_model: ModelFactory, crystal: Atoms) -> None:
    members = [make_model(seed) for seed in range(3)]
    mean = np.mean([SchNetCalculator(member).get_hessian(crystal) for member in members], axis=0)
    np.testing.assert_allclose(SchNetEnsembleCalculator(members).get_hessian(crystal), mean, atol=1e-12)


def test_of_the_shipped_ethanol_by_the_engine_it_has() -> None:
    calc = SchNetEnsembleCalculator("rmd17-ethanol", dtype="float64")
    atoms = structure("rmd17-ethanol")
    np.testing.assert_allclose(calc.get_hessian(atoms), by_differences(calc, atoms, 1e-3), rtol=0.0, atol=1e-6)


def test_rows_in_parts_are_the_same(make_model: ModelFactory, ethanol: Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    calc = SchNetCalculator(make_model(0), engine="autograd")
    whole = calc.get_hessian(ethanol)
    monkeypatch.setattr("schnet_ase.inference.derivatives.PAIRS_AT_ONCE", 100)
    np.testing.assert_allclose(calc.get_hessian(ethanol), whole, atol=1e-12)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_in_any_context_of_the_caller(make_model: ModelFactory, ethanol: Atoms, context: type) -> None:
    calc = SchNetCalculator(make_model(0), engine="autograd")
    expected = calc.get_hessian(ethanol), calc.get_descriptors(ethanol)
    with context():
        np.testing.assert_array_equal(calc.get_hessian(ethanol), expected[0])
        np.testing.assert_array_equal(calc.get_descriptors(ethanol), expected[1])
        fresh = SchNetCalculator(make_model(0), engine="autograd")
        np.testing.assert_array_equal(fresh.get_hessian(ethanol), expected[0])


def test_of_atoms_without_neighbours(make_calculator: CalculatorFactory) -> None:
    calc = make_calculator()
    assert (calc.get_hessian(Atoms("N")) == 0.0).all()
    assert (calc.get_hessian(Atoms("N2", [[0.0, 0.0, 0.0], [0.0, 0.0, 9.0]])) == 0.0).all()


def test_what_a_calculator_refuses_is_refused_here_too(make_model: ModelFactory, ethanol: Atoms) -> None:
    model = make_model(0)
    model.elements = (1, 6)
    calc = SchNetCalculator(model, engine="autograd")
    twice = ethanol[[0, 1, 1]]
    for method in (calc.get_hessian, calc.get_descriptors):
        with pytest.raises(StructureError, match="not trained on O"):
            method(ethanol)
        with pytest.raises(StructureError, match="at one position"):
            method(twice[[n for n in range(3) if twice.numbers[n] != 8]])


@pytest.mark.parametrize("pbc", PBC, ids=str)
@pytest.mark.parametrize("prior", [None, "zbl"])
def test_stresses_of_atoms_add_up_to_the_stress(
    make_calculator: CalculatorFactory, crystal: Atoms, prior: str | None, pbc: tuple[bool, bool, bool]
) -> None:
    crystal.pbc = pbc
    crystal.set_cell(0.59 * crystal.cell, scale_atoms=True)
    crystal.calc = make_calculator({"prior": prior}, dtype="float64")
    stress = crystal.get_stress()
    assert "stresses" not in crystal.calc.results, "they cost something"
    stresses = crystal.get_stresses()
    assert stresses.shape == (4, 6)
    np.testing.assert_allclose(stresses.sum(axis=0), stress, rtol=0.0, atol=1e-10)
    larger = crystal * (2, 1, 1)
    larger.calc = crystal.calc
    if crystal.pbc[0]:  # each atom has the same virial in twice the volume
        np.testing.assert_allclose(2.0 * larger.get_stresses()[:4], stresses, rtol=0.0, atol=1e-10)


def test_virial_of_two_atoms_is_half_of_force_times_distance_each(make_calculator: CalculatorFactory) -> None:
    atoms = Atoms("OH", [[1.0, 1.0, 1.0], [1.3, 1.2, 1.9]], cell=[9.0, 8.0, 7.0])
    atoms.calc = make_calculator(dtype="float64")
    vector = atoms.positions[1] - atoms.positions[0]
    half = -0.5 * np.outer(vector, atoms.get_forces()[1]) / atoms.get_volume()
    for stress in voigt_6_to_full_3x3_stress(atoms.get_stresses()):
        np.testing.assert_allclose(stress, half, rtol=0.0, atol=1e-12)


def test_stresses_need_a_volume_and_no_dispersion(make_model: ModelFactory, ethanol: Atoms, crystal: Atoms) -> None:
    calc = SchNetCalculator(make_model(0), engine="autograd")
    with pytest.raises(PropertyNotImplementedError, match="volume"):
        calc.get_stresses(ethanol)
    pytest.importorskip("dftd3")
    calc = SchNetCalculator(make_model(0, dispersion="pbe"), engine="autograd")
    for method in (calc.get_stresses, calc.get_heat_flux):
        with pytest.raises(PropertyNotImplementedError, match="dispersion"):
            method(crystal)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_descriptors_are_what_the_readout_gets(make_model: ModelFactory, crystal: Atoms, dtype: str) -> None:
    members = [make_model(seed) for seed in range(2)]
    for m, member in enumerate(members):
        for calc, arguments in (
            (SchNetEnsembleCalculator(members, dtype=dtype), {"member": m}),
            (SchNetCalculator(member, dtype=dtype), {}),
        ):
            features = calc.get_descriptors(crystal, **arguments)
            assert features.shape == (4, 16)
            assert features.dtype == np.float64
            hidden = member.readout_activation(
                torch.from_numpy(features) @ member.readout1.weight.double().T + member.readout1.bias.double()
            )
            output = (hidden @ member.readout2.weight.double().T + member.readout2.bias.double()).detach().numpy()
            energies = 2.0 * output[:, 0] + member.reference.numpy()[crystal.numbers]
            expected = SchNetCalculator(member, dtype="float64").get_property("energies", crystal)
            np.testing.assert_allclose(energies, expected, rtol=0.0, atol={"float32": 1e-4, "float64": 1e-8}[dtype])


def test_descriptors_are_invariant(make_model: ModelFactory, ethanol: Atoms) -> None:
    calc = SchNetCalculator(make_model(0), engine="autograd", dtype="float64")
    features = calc.get_descriptors(ethanol)
    turned = ethanol[::-1]
    turned.rotate(40.0, (1.0, 2.0, 3.0))
    turned.positions += 5.0
    np.testing.assert_allclose(calc.get_descriptors(turned)[::-1], features, rtol=0.0, atol=1e-10)
    with pytest.raises(ValueError, match="member is 1; expected 0 to 0"):
        calc.get_descriptors(ethanol, member=1)
