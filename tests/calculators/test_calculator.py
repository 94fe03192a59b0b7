"""Both calculators under ASE: files, copies and the other habits of ASE's users, and input that has to be refused."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from schnet_ase import SchNetCalculator, save_model
from schnet_ase.errors import StructureError
from tests.support.calculations import calculated
from tests.support.factories import CalculatorFactory, ModelFactory

# --- habits of ASE's users ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [8, 9])
@pytest.mark.parametrize("suffix", ["extxyz", "traj", "json", "db"])
def test_results_survive_files(
    make_calculator: CalculatorFactory, ethanol: Atoms, tmp_path: Path, suffix: str, n: int
) -> None:
    atoms = calculated(ethanol[:n], make_calculator())
    file = tmp_path / f"atoms.{suffix}"
    ase.io.write(file, atoms)
    back = ase.io.read(file)
    # extxyz prints eight decimals.
    tolerance = 1e-8 if suffix == "extxyz" else 0.0
    assert back.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=tolerance, rel=0.0)
    np.testing.assert_allclose(back.get_forces(), atoms.get_forces(), rtol=0.0, atol=tolerance)
    if suffix != "db":  # which keeps no per-atom energies
        np.testing.assert_allclose(back.get_potential_energies(), atoms.get_potential_energies(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("suffix", ["extxyz", "traj", "json", "db"])
def test_stress_survives_files(make_calculator: CalculatorFactory, crystal: Atoms, tmp_path: Path, suffix: str) -> None:
    atoms = calculated(crystal, make_calculator())
    file = tmp_path / f"atoms.{suffix}"
    ase.io.write(file, atoms)
    np.testing.assert_allclose(ase.io.read(file).get_stress(), atoms.get_stress(), rtol=0.0, atol=1e-8)


@pytest.mark.parametrize("n", [8, 9])
def test_rows_of_a_database_have_float64_forces(
    make_calculator: CalculatorFactory, ethanol: Atoms, tmp_path: Path, n: int
) -> None:
    atoms = calculated(ethanol[:n], make_calculator())
    with ase.db.connect(tmp_path / "atoms.db") as db:
        db.write(atoms)
        row = db.get(1)
    assert row.energy == atoms.get_potential_energy()
    assert row.forces.dtype == np.float64
    np.testing.assert_array_equal(row.forces, atoms.get_forces())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
@pytest.mark.parametrize("activation", ["ssp", "silu", "gelu", "softplus", "tanh"])
def test_deepcopy_and_pickle(
    make_calculator: CalculatorFactory, ethanol: Atoms, duplicate: Callable[[Any], Any], activation: str
) -> None:
    atoms = calculated(ethanol, make_calculator({"activation": activation}))
    twin = duplicate(atoms)
    assert twin.calc is not atoms.calc
    for either in (atoms, twin):
        either.rattle(0.1, seed=3)
    np.testing.assert_array_equal(twin.get_forces(), atoms.get_forces())


def test_get_properties_and_export_properties(make_calculator: CalculatorFactory, crystal: Atoms) -> None:
    calc = make_calculator()
    crystal.calc = calc
    uncalibrated = [name for name in calc.implemented_properties if name.endswith("_uncertainty")]
    names = [name for name in calc.implemented_properties if name not in ("free_energy", *uncalibrated)]
    properties = crystal.get_properties(names)
    assert set(calc.results) == {"free_energy", *names}
    for source in (properties, calc.export_properties()):
        for name in names:
            np.testing.assert_array_equal(source[name], calc.results[name])
    for name in uncalibrated:
        with pytest.raises(PropertyNotImplementedError):
            crystal.get_properties([name])


def test_implemented_properties_are_the_class_s_own_and_stay_so(
    make_calculator: CalculatorFactory, ethanol: Atoms, crystal: Atoms
) -> None:
    calc = make_calculator()
    declared = list(type(calc).implemented_properties)
    for atoms in (ethanol, crystal):
        calc.get_potential_energy(atoms)
        assert set(calc.results) <= set(declared)
    assert "implemented_properties" not in vars(calc)
    assert type(calc).implemented_properties == declared


def test_parameters_are_json_scalars(make_calculator: CalculatorFactory) -> None:
    for value in make_calculator(dtype="float64", skin=0.5, threads=1).parameters.values():
        assert value is None or isinstance(value, (str, int, float))


@pytest.mark.parametrize("relative", [True, False])
def test_todict_makes_the_same_calculator_from_a_file(
    make_model: ModelFactory, ethanol: Atoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    save_model(make_model(), tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    file = Path("model.safetensors") if relative else tmp_path / "model.safetensors"
    calc = SchNetCalculator(file, dtype="float64", skin=0.7, threads=1)
    monkeypatch.chdir("/")
    again = SchNetCalculator(**json.loads(json.dumps(calc.todict())))
    assert again.todict() == calc.todict()
    np.testing.assert_array_equal(again.get_forces(ethanol), calc.get_forces(ethanol))


def test_a_file_gives_what_its_model_gives(make_model: ModelFactory, ethanol: Atoms, tmp_path: Path) -> None:
    model = make_model()
    save_model(model, tmp_path / "model.safetensors")
    from_file = SchNetCalculator(str(tmp_path / "model.safetensors"), dtype="float64")
    from_memory = SchNetCalculator(model, dtype="float64")
    np.testing.assert_array_equal(from_file.get_forces(ethanol), from_memory.get_forces(ethanol))


@pytest.mark.parametrize("engine", ["autograd", "compiled"])
def test_inference_mode_changes_nothing(make_model: ModelFactory, ethanol: Atoms, engine: str) -> None:
    outside = SchNetCalculator(make_model(0), engine=engine, dtype="float64")
    forces = outside.get_forces(ethanol)
    with torch.inference_mode():
        outside.reset()
        inside = SchNetCalculator(make_model(0), engine=engine, dtype="float64")
        for calc in (outside, inside):
            np.testing.assert_allclose(calc.get_forces(ethanol), forces, atol=1e-12)
    inside.reset()
    np.testing.assert_allclose(inside.get_forces(ethanol), forces, atol=1e-12)


def test_the_caller_s_model_is_copied(make_model: ModelFactory, ethanol: Atoms) -> None:
    model = make_model().train()
    calc = SchNetCalculator(model, dtype="float64")
    energy = calc.get_potential_energy(ethanol)
    assert model.dtype == torch.float32
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    with torch.no_grad():
        model.readout2.bias += 1.0
    calc.reset()
    assert calc.get_potential_energy(ethanol) == energy


def test_nothing_global_changes(make_calculator: CalculatorFactory, ethanol: Atoms) -> None:
    threads, random = torch.get_num_threads(), torch.get_rng_state()
    calculated(ethanol, make_calculator(dtype="float64", threads=threads + 1))
    assert torch.get_num_threads() == threads
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), random)


def test_one_calculator_for_several_systems(make_calculator: CalculatorFactory, ethanol: Atoms, crystal: Atoms) -> None:
    shared = make_calculator(dtype="float64")
    flipped = ethanol.copy()
    flipped.numbers = ethanol.numbers[::-1]
    for atoms in (ethanol, crystal, flipped, ethanol[:3], crystal, ethanol):
        expected = make_calculator(dtype="float64").get_forces(atoms)
        np.testing.assert_allclose(shared.get_forces(atoms), expected, rtol=0.0, atol=1e-10)


def test_atoms_are_a_copy_of_those_calculated_last(make_calculator: CalculatorFactory, crystal: Atoms) -> None:
    calc = make_calculator()
    assert calc.atoms is None
    energy = calc.get_potential_energy(crystal)
    known = calc.atoms
    assert known is not None
    assert known == crystal
    assert known.calc is None
    assert calc.get_potential_energy() == energy
    known.positions += 1.0
    crystal.positions[0, 0] += 0.1
    assert calc.check_state(crystal) == ["positions"]
    assert calc.get_potential_energy(crystal) != energy
    calc.atoms = known
    assert not calc.check_state(known)


def test_positions_in_single_precision_are_calculated_once(make_calculator: CalculatorFactory, ethanol: Atoms) -> None:
    ethanol.arrays["positions"] = ethanol.positions.astype(np.float32)
    ethanol.calc = make_calculator()
    ethanol.get_forces()
    assert not ethanol.calc.check_state(ethanol)


def test_results_do_not_depend_on_the_default_dtype(ethanol: Atoms) -> None:
    forces = SchNetCalculator("rmd17-ethanol", dtype="float64").get_forces(ethanol)
    torch.set_default_dtype(torch.float64)  # as another program in this process may
    try:
        again = SchNetCalculator("rmd17-ethanol", dtype="float64").get_forces(ethanol)
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(again, forces)


def test_set_is_refused(make_calculator: CalculatorFactory) -> None:
    with pytest.raises(ValueError, match="make a new one"):
        make_calculator().set(dtype="float64")


@pytest.mark.parametrize("model", [None, 5, ["rmd17-ethanol"]])
def test_what_is_no_model_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="expected a registry name, a path of a .safetensors file, or a SchNet"):
        SchNetCalculator(model)


# --- input that has to be refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("dtype", "float16"),
        ("dtype", torch.float32),
        ("engine", "magic"),
        ("threads", 0),
        ("threads", 1.5),
        ("skin", -0.5),
        ("skin", float("nan")),
        ("skin", float("inf")),
        ("device", "abacus"),
    ],
)
def test_rejects_argument(make_calculator: CalculatorFactory, argument: str, value: object) -> None:
    with pytest.raises(ValueError, match=argument):
        make_calculator(**{argument: value})


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "no atoms"),
        (Atoms("CO", [[0, 0, 0], [0, 0, np.nan]]), "position of atom 1"),
        (Atoms("CO", [[0, 0, np.inf], [0, 0, 1]]), "position of atom 0"),
        (Atoms("C", cell=[3.0, 3.0, np.nan], pbc=True), "cell is"),
        (Atoms("COC", [[0, 0, 0], [0, 0, 1.2], [0, 0, 1.2]]), "atoms 1 and 2 are 0 Å apart"),
        (Atoms("CO", [[0, 0, 0], [3, 3, 0]], cell=[3.0] * 3, pbc=True), "atoms 0 and 1 are"),
        (Atoms("C", cell=[3.0, 3.0, 0.0], pbc=True), "do not span a volume"),
        (Atoms([110]), "element Ds is none of the model's, whose max_z is"),
        (Atoms([119, 1], [[0, 0, 0], [0, 0, 1]]), "element of number 119 is none"),
        (Atoms([-1, 1], [[0, 0, 0], [0, 0, 1]]), "element of number -1 is none"),
    ],
)
def test_rejects_atoms(make_calculator: CalculatorFactory, atoms: Atoms, message: str) -> None:
    with pytest.raises(StructureError, match=message) as error:
        make_calculator().get_potential_energy(atoms)
    assert "\n" not in str(error.value)


def test_rejects_a_periodic_system_where_every_pair_counts(make_calculator: CalculatorFactory, crystal: Atoms) -> None:
    with pytest.raises(StructureError, match="without an envelope"):
        make_calculator({"envelope": "none"}).get_potential_energy(crystal)


def test_rejects_an_element_the_model_was_not_trained_on(make_model: ModelFactory, crystal: Atoms) -> None:
    model = make_model()
    model.elements = (1, 6, 8)
    calc = SchNetCalculator(model)
    for _ in range(2):  # each time: the list of pairs is there the second time
        with pytest.raises(StructureError, match="not trained on N; it knows H, C, O"):
            calc.get_potential_energy(crystal)


def test_rejects_no_atoms_at_all(make_calculator: CalculatorFactory) -> None:
    with pytest.raises(StructureError, match=r"ase\.Atoms"):
        make_calculator().calculate()


def test_results_of_the_last_atoms_are_not_those_of_refused_ones(
    make_calculator: CalculatorFactory, ethanol: Atoms
) -> None:
    atoms = calculated(ethanol, make_calculator())
    atoms.positions[1] = atoms.positions[0]
    for _ in range(2):
        with pytest.raises(StructureError, match="apart"):
            atoms.get_properties(["energy"])
        with pytest.raises(StructureError, match="apart"):
            atoms.get_potential_energy()


def test_goes_on_after_refused_atoms(make_calculator: CalculatorFactory, ethanol: Atoms) -> None:
    calc = make_calculator(dtype="float64")
    expected = calc.get_forces(ethanol)
    broken = ethanol.copy()
    broken.positions[3] = np.nan
    with pytest.raises(StructureError, match="position of atom 3"):
        calc.get_forces(broken)
    np.testing.assert_allclose(calc.get_forces(ethanol), expected, rtol=0.0, atol=1e-12)
