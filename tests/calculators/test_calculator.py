"""Both calculators under ASE: the physics contract, files, dynamics, and input that has to be refused."""

import copy
import json
import pickle
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_stress
from ase.calculators.socketio import SocketClient, SocketIOCalculator
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.md.langevin import Langevin
from ase.md.melchionna import MelchionnaNPT
from ase.md.nose_hoover_chain import MTKNPT, NoseHooverChainNVT
from ase.md.nptberendsen import NPTBerendsen
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE

from schnet_ase import SchNet, SchNetCalculator, save_model
from schnet_ase.errors import StructureError
from schnet_ase.testing import check_calculator

ModelFactory = Callable[..., SchNet]
CalculatorFactory = Callable[..., Calculator]

DTYPES = ["float64", "float32"]
ENGINES = ["autograd", "compiled"]


def calculated(atoms: Atoms, calc: Calculator) -> Atoms:
    atoms = atoms.copy()
    atoms.calc = calc
    atoms.get_forces()
    return atoms


def set_temperature(atoms: Atoms, kelvin: float, seed: int = 0) -> None:
    widths = np.sqrt(atoms.get_masses() * units.kB * kelvin)
    atoms.set_momenta(np.random.default_rng(seed).normal(size=(len(atoms), 3)) * widths[:, None])


@pytest.fixture
def cube() -> Atoms:
    """Sixteen atoms in a cell that barostats of any kind take."""
    atoms = Atoms("CO", [[0, 0, 0], [1.5, 1.4, 1.6]], cell=[3.2] * 3, pbc=True) * (2, 2, 2)
    atoms.rattle(0.05, seed=2)
    return atoms


# --- physics ------------------------------------------------------------------------------------------------------


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


# --- the checker itself -------------------------------------------------------------------------------------------


class Tampered(SchNetCalculator):
    """A calculator that breaks one promise."""

    def __init__(self, model: SchNet, tamper: Callable[[dict[str, Any], Atoms], None]) -> None:
        super().__init__(model, dtype="float64")
        self.tamper = tamper

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        super().calculate(*args, **kwargs)
        assert self.atoms is not None
        self.tamper(self.results, self.atoms)


def add_energy(energy: Callable[[Atoms], float]) -> Callable[[dict[str, Any], Atoms], None]:
    def tamper(results: dict[str, Any], atoms: Atoms) -> None:
        extra = energy(atoms)
        results["energy"] += extra
        results["free_energy"] += extra
        results["energies"][0] += extra

    return tamper


def replace(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any], Atoms], None]:
    return lambda results, atoms: results.update({name: change(results[name])})


BUFFER = np.zeros((4, 3))


def fill_buffer(forces: np.ndarray) -> np.ndarray:
    BUFFER[:] = forces
    return BUFFER


def spread(atoms: Atoms) -> float:
    """Invariant under all but moves of single atoms by lattice vectors."""
    return float(np.var(atoms.positions, axis=0).sum())


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (replace("forces", lambda f: 1.00001 * f), "forces are not minus the gradient"),
        (replace("stress", lambda s: 1.00001 * s), "stress is not the strain derivative"),
        (replace("stress", lambda s: s[[0, 1, 2, 5, 4, 3]]), "stress is not the strain derivative"),
        (replace("forces", lambda f: f + 1e-6), "forces do not sum to zero"),
        (replace("energies", lambda e: e + 1e-6), "energies do not sum to the energy"),
        (replace("free_energy", lambda e: e + 1e-12), "free_energy is not the energy"),
        (replace("energies", lambda e: e[:-1]), "energies has shape"),
        (replace("forces", lambda f: f.astype(np.float32)), "forces has dtype float32"),
        (replace("forces", fill_buffer), "forces shares memory"),
        (replace("forces", lambda f: f * np.nan), "forces do not sum to zero: off by nan"),
        (lambda results, atoms: results.pop("free_energy"), "free_energy is missing"),
        (lambda results, atoms: results.pop("stress"), "stress is missing"),
        (lambda results, atoms: results.update(charges=np.zeros(4)), "charges is not among implemented_properties"),
        (add_energy(lambda a: 1e-9 * a.positions[0, 0]), "energy changes under translation"),
        (add_energy(lambda a: 1e-8 * (a.positions[1] - a.positions[0])[2]), "energy changes under rotation"),
        (add_energy(lambda a: 1e-8 * np.linalg.norm(a.positions[1] - a.positions[0])), "energy changes under permut"),
        (add_energy(lambda a: 1e-8 * spread(a)), "energy changes under moves by lattice vectors"),
    ],
)
def test_checker_finds(
    make_model: ModelFactory, crystal: Atoms, tamper: Callable[[dict[str, Any], Atoms], None], message: str
) -> None:
    with pytest.raises(AssertionError, match=message) as failure:
        check_calculator(Tampered(make_model(), tamper), crystal)
    assert "\n" not in str(failure.value)


def test_checker_says_by_how_much(make_model: ModelFactory, crystal: Atoms) -> None:
    broken = Tampered(make_model(), add_energy(lambda a: 1e-3 * float(a.positions[:, 0].sum())))
    with pytest.raises(AssertionError, match=r"off by \S+ eV, tolerance 1e-10 eV"):
        check_calculator(broken, crystal)


def test_checker_leaves_the_atoms_alone(make_model: ModelFactory, crystal: Atoms) -> None:
    crystal.set_constraint(FixAtoms([0]))
    before = crystal.copy()
    check_calculator(SchNetCalculator(make_model(), dtype="float64"), crystal)
    assert crystal == before
    assert crystal.calc is None
    assert crystal.constraints


# --- stress -------------------------------------------------------------------------------------------------------


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


# --- dynamics -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [BFGS, FIRE])
def test_relaxation_lowers_the_energy(make_calculator: CalculatorFactory, ethanol: Atoms, optimizer: type) -> None:
    atoms = calculated(ethanol, make_calculator(dtype="float64"))
    before = atoms.get_potential_energy()
    optimizer(atoms, logfile=None).run(fmax=0.01, steps=10)
    assert atoms.get_potential_energy() < before - 1e-4


def test_fixed_atoms_stay(make_calculator: CalculatorFactory, ethanol: Atoms) -> None:
    atoms = calculated(ethanol, make_calculator(dtype="float64"))
    atoms.set_constraint(FixAtoms([0, 2]))
    assert (atoms.get_forces()[[0, 2]] == 0.0).all()
    assert np.abs(atoms.get_forces(apply_constraint=False)[[0, 2]]).max() > 1e-3
    BFGS(atoms, logfile=None).run(steps=3)
    np.testing.assert_array_equal(atoms.positions[[0, 2]], ethanol.positions[[0, 2]])
    assert np.abs(atoms.positions[1] - ethanol.positions[1]).max() > 1e-3


def langevin(atoms: Atoms) -> Langevin:
    return Langevin(
        atoms, 0.5 * units.fs, temperature_K=300, friction=0.01 / units.fs, fixcm=False, rng=np.random.default_rng(0)
    )


def melchionna(atoms: Atoms) -> MelchionnaNPT:
    atoms.set_momenta(atoms.get_momenta() - atoms.get_momenta().mean(axis=0))
    return MelchionnaNPT(
        atoms, 0.5 * units.fs, temperature_K=300, externalstress=0.0, ttime=25 * units.fs, pfactor=100.0
    )


def berendsen(atoms: Atoms) -> NPTBerendsen:
    return NPTBerendsen(atoms, 0.5 * units.fs, temperature_K=300, pressure_au=0.0, compressibility_au=0.5)


def martyna_tobias_klein(atoms: Atoms) -> MTKNPT:
    return MTKNPT(atoms, 0.5 * units.fs, temperature_K=300, pressure_au=0.0, tdamp=50 * units.fs, pdamp=100 * units.fs)


@pytest.mark.parametrize("barostat", [melchionna, berendsen, martyna_tobias_klein])
def test_barostats_follow_the_stress(
    make_calculator: CalculatorFactory, cube: Atoms, barostat: Callable[[Atoms], Any]
) -> None:
    atoms = calculated(cube, make_calculator(dtype="float64"))
    set_temperature(atoms, 300.0)
    pressure = -atoms.get_stress(include_ideal_gas=True)[:3].mean()
    assert abs(pressure) > 1e-4
    barostat(atoms).run(5)
    # At an external pressure of zero, a positive internal one makes the cell grow.
    assert np.sign(atoms.cell.volume - cube.cell.volume) == np.sign(pressure)
    assert np.isfinite(atoms.get_forces()).all()


def test_langevin(make_calculator: CalculatorFactory, ethanol: Atoms) -> None:
    atoms = calculated(ethanol, make_calculator())
    langevin(atoms).run(5)
    assert np.isfinite(atoms.get_forces()).all()
    assert atoms.get_kinetic_energy() > 0.0


def test_nose_hoover_chain_conserves_its_energy(make_calculator: CalculatorFactory, ethanol: Atoms) -> None:
    # To second order in the time step; the chain asks the calculator for free_energy.
    calc = make_calculator(dtype="float64")

    def deviation(steps_per_fs: int) -> float:
        atoms = calculated(ethanol, calc)
        set_temperature(atoms, 300.0)
        dynamics = NoseHooverChainNVT(atoms, units.fs / steps_per_fs, temperature_K=300, tdamp=20 * units.fs)
        energies = [dynamics.get_conserved_energy()]
        for _ in range(10):
            dynamics.run(steps_per_fs)
            energies.append(dynamics.get_conserved_energy())
        return float(np.std(energies))

    coarse, fine = deviation(2), deviation(4)
    assert coarse / fine == pytest.approx(4.0, rel=0.1)


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
