"""torch-sim's own checker, and results that are those of the calculators."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator, save_model
from schnet_ase.errors import StructureError
from tests.support.factories import ModelFactory

pytest.importorskip("torch_sim", reason="pip install torch-sim-atomistic")

import torch_sim as ts
from torch_sim.models.interface import validate_model_outputs

from schnet_ase.bridges.torchsim import SchNetModel

CPU = torch.device("cpu")


@pytest.fixture
def folder(make_model: ModelFactory, tmp_path: Path) -> Path:
    for seed in range(2):
        save_model(make_model(seed), tmp_path / "models" / f"fold-{seed}.safetensors")
    return tmp_path / "models"


def model(folder: Path, ensemble: bool, **options: object) -> SchNetModel:
    return SchNetModel(folder if ensemble else folder / "fold-0.safetensors", ensemble=ensemble, **options)


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("network_dtype", ["float32", "float64"])
def test_checker_of_torch_sim(folder: Path, ensemble: bool, network_dtype: str) -> None:
    validate_model_outputs(model(folder, ensemble, network_dtype=network_dtype), CPU, torch.float64)


@pytest.mark.parametrize("ensemble", [False, True])
def test_results_are_those_of_the_calculators(folder: Path, ensemble: bool, ethanol: Atoms, crystal: Atoms) -> None:
    simulated = model(folder, ensemble, network_dtype="float64")
    kind = SchNetEnsembleCalculator if ensemble else SchNetCalculator
    ours = kind(folder if ensemble else folder / "fold-0.safetensors", dtype="float64")
    other = crystal.copy()
    other.rattle(0.1, seed=4)
    for group in ([ethanol, ethanol[:5]], [crystal, other, crystal[:3]], [other, crystal]):
        outputs = simulated(ts.io.atoms_to_state(group, CPU, torch.float64))
        assert all(values.dtype == torch.float64 for values in outputs.values())
        begin = 0
        for n, atoms in enumerate(group):
            forces = ours.get_forces(atoms)
            end = begin + len(atoms)
            np.testing.assert_allclose(outputs["forces"][begin:end], forces, rtol=0.0, atol=1e-10)
            assert float(outputs["energy"][n]) == pytest.approx(ours.results["energy"], abs=1e-9)
            if atoms.pbc.any():
                found = outputs["stress"][n].numpy().flatten()[[0, 4, 8, 5, 2, 1]]
                np.testing.assert_allclose(found, ours.get_stress(atoms), rtol=0.0, atol=1e-10)
            if ensemble:
                assert float(outputs["energy_std"][n]) == pytest.approx(ours.results["energy_std"], abs=1e-9)
                deviation = outputs["forces_deviation"][begin:end]
                np.testing.assert_allclose(deviation, ours.results["forces_deviation"], rtol=0.0, atol=1e-10)
            begin = end


def test_dynamics_keeps_its_energy(folder: Path, ethanol: Atoms) -> None:
    group = [ethanol.copy() for _ in range(3)]
    for seed, atoms in enumerate(group):
        atoms.rattle(0.02, seed=seed)
    energies: list[tuple[float, float]] = []

    def total(state) -> torch.Tensor:
        kinetic = 0.5 * (state.momenta**2 / state.masses[:, None]).sum()
        energies.append((float(state.energy.sum()), float(kinetic)))
        return state.energy

    ts.integrate(
        system=group,
        model=model(folder, ensemble=False, network_dtype="float64"),
        integrator=ts.Integrator.nve if hasattr(ts, "Integrator") else ts.integrators.nve,
        n_steps=40,
        temperature=100.0,
        timestep=0.0002,  # ps
        trajectory_reporter={"filenames": None, "prop_calculators": {1: {"total": total}}},
    )
    of_each = np.array(energies).reshape(-1, 3, 2)
    assert len(of_each) >= 40
    assert (np.ptp(of_each.sum(axis=2), axis=0) < 0.02 * np.ptp(of_each[:, :, 1], axis=0)).all()


def test_partial_periodicity_is_refused(folder: Path, crystal: Atoms) -> None:
    simulated = model(folder, ensemble=False)
    state = ts.io.atoms_to_state([crystal], CPU, torch.float64)
    if not isinstance(state.pbc, torch.Tensor):
        pytest.skip("this version of torch-sim has one flag for all directions")
    state.pbc = torch.tensor([True, True, False])
    with pytest.raises(StructureError, match="pbc is"):
        simulated(state)


def test_unknown_elements_are_refused(make_model: ModelFactory, tmp_path: Path, ethanol: Atoms) -> None:
    network = make_model()
    network.elements = (1, 6)
    save_model(network, tmp_path / "ch.safetensors")
    with pytest.raises(StructureError, match="not trained on O"):
        SchNetModel(tmp_path / "ch.safetensors")(ts.io.atoms_to_state([ethanol], CPU, torch.float64))
