"""Exported models in metatomic's own ASE calculator and in i-PI's driver, against the calculators of this package."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms

from schnet_ase import SchNet, SchNetCalculator, SchNetEnsembleCalculator, save_model
from schnet_ase.errors import ExportError
from tests.support.factories import ModelFactory

pytest.importorskip("metatomic.torch", reason="pip install metatomic-torch metatomic-ase")

from metatensor.torch import Labels
from metatomic.torch import ModelOutput
from metatomic_ase import MetatomicCalculator

from schnet_ase.export.metatomic import write_metatomic

CONFIGS = {
    "polynomial": {},
    "cosine": {"envelope": "cosine", "gamma": 8.0, "interaction_bias": False, "activation": "softplus"},
    "silu": {"activation": "silu", "filter_activation_last": False, "norm": "rms"},
    "exponential": {"radial": "exponential", "activation": "gelu", "norm": "layer"},
    "readout": {"activation": "tanh", "readout_activation": "silu"},
    "repulsion": {"prior": "zbl"},
}


def exported(models: list[SchNet], folder: Path, dtype: str = "float64") -> MetatomicCalculator:
    write_metatomic(folder / "model.pt", models, name="test", dtype=dtype)
    return MetatomicCalculator(str(folder / "model.pt"), check_consistency=True, device="cpu")


@pytest.mark.parametrize("name", ["ethanol", "crystal"])
@pytest.mark.parametrize("config", CONFIGS)
def test_results_are_ours(
    config: str, name: str, make_model: ModelFactory, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    atoms = request.getfixturevalue(name)
    models = [make_model(seed, **CONFIGS[config]) for seed in range(2)]
    ours = SchNetEnsembleCalculator(models, dtype="float64", engine="autograd")
    theirs = exported(models, tmp_path)
    for seed in range(3):  # TorchScript compiles anew at the second call
        atoms.rattle(0.02, seed=seed)
        if config == "repulsion":
            atoms.positions[1] = atoms.positions[0] + 0.45
        forces = ours.get_forces(atoms)
        assert theirs.get_potential_energy(atoms) == pytest.approx(ours.results["energy"], abs=1e-9)
        np.testing.assert_allclose(theirs.get_forces(atoms), forces, rtol=1e-11, atol=1e-10)
        if atoms.pbc.any():
            np.testing.assert_allclose(theirs.get_stress(atoms), ours.get_stress(atoms), rtol=1e-11, atol=1e-10)


def test_all_pairs_of_a_molecule(make_model: ModelFactory, ethanol: Atoms, crystal: Atoms, tmp_path: Path) -> None:
    model = make_model(envelope="none")
    theirs = exported([model], tmp_path)
    ours = SchNetCalculator(model, dtype="float64")
    np.testing.assert_allclose(theirs.get_forces(ethanol), ours.get_forces(ethanol), rtol=0.0, atol=1e-10)
    with pytest.raises(Exception, match="periodic"):
        theirs.get_forces(crystal)


def test_networks_in_float32(make_model: ModelFactory, ethanol: Atoms, tmp_path: Path) -> None:
    model = make_model()
    theirs = exported([model], tmp_path, "float32")
    ours = SchNetCalculator(model, engine="autograd")
    np.testing.assert_allclose(theirs.get_forces(ethanol), ours.get_forces(ethanol), rtol=0.0, atol=2e-5)
    assert theirs.get_potential_energy(ethanol) == pytest.approx(ours.get_potential_energy(ethanol), abs=1e-4)


def test_outputs_of_an_ensemble(make_model: ModelFactory, ethanol: Atoms, crystal: Atoms, tmp_path: Path) -> None:
    models = [make_model(seed) for seed in range(3)]
    theirs = exported(models, tmp_path)
    per_system = {
        name: ModelOutput(unit="eV", sample_kind="system") for name in ("energy_ensemble", "energy_uncertainty")
    }
    results = theirs.run_model([ethanol, crystal], per_system)
    ours = SchNetEnsembleCalculator(models, dtype="float64")
    for n, atoms in enumerate((ethanol, crystal)):
        ours.get_potential_energy(atoms)
        found = {name: results[name].block().values[n].numpy() for name in per_system}
        np.testing.assert_allclose(found["energy_ensemble"], ours.results["energy_ensemble"], rtol=0.0, atol=1e-9)
        assert found["energy_uncertainty"] == pytest.approx(ours.results["energy_std"], abs=1e-9)
    features = theirs.run_model([ethanol], {"feature": ModelOutput(sample_kind="atom")})["feature"].block().values
    assert features.shape == (len(ethanol), 3 * models[0].config.n_features)


def test_atoms_of_a_domain_add_up(make_model: ModelFactory, ethanol: Atoms, tmp_path: Path) -> None:
    theirs = exported([make_model()], tmp_path)
    parts = []
    for kind in ("system", "atom"):
        wanted = {"energy": ModelOutput(unit="eV", sample_kind=kind)}
        for indices in ((0, 2, 8), (1, 3, 4, 5, 6, 7)):
            chosen = Labels(["system", "atom"], torch.tensor([[0, i] for i in indices], dtype=torch.int32))
            parts.append(theirs.run_model([ethanol], wanted, selected_atoms=chosen)["energy"].block().values.sum())
    whole = theirs.get_potential_energy(ethanol)
    assert float(parts[0] + parts[1]) == pytest.approx(whole, abs=1e-9)
    assert float(parts[2] + parts[3]) == pytest.approx(whole, abs=1e-9)


def test_unknown_elements_are_refused(make_model: ModelFactory, ethanol: Atoms, tmp_path: Path) -> None:
    model = make_model()
    model.elements = (1, 6)
    with pytest.raises(Exception, match="8"):
        exported([model], tmp_path).get_potential_energy(ethanol)


def test_dispersion_is_refused(make_model: ModelFactory, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"dispersion.*DFTD3"):
        write_metatomic(tmp_path / "model.pt", [make_model(dispersion="pbe")], name="test")
    assert not list(tmp_path.iterdir())


def test_members_of_different_configs_are_refused(make_model: ModelFactory, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="different configs"):
        write_metatomic(tmp_path / "model.pt", [make_model(), make_model(cutoff=5.0)], name="test")


def test_command(make_model: ModelFactory, ethanol: Atoms, tmp_path: Path, monkeypatch, run, mistake) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        save_model(make_model(seed), Path("models", f"fold-{seed}.safetensors"))
    status, out, _ = run("export", "metatomic", "models")
    assert (status, out.splitlines()[0]) == (0, "2 networks in models.pt; in ASE:")
    calculator = MetatomicCalculator("models.pt")
    ours = SchNetEnsembleCalculator("models", dtype="float64")
    np.testing.assert_allclose(calculator.get_forces(ethanol), ours.get_forces(ethanol), rtol=0.0, atol=1e-10)
    assert "models.pt exists" in mistake("export", "metatomic", "models")
    assert run("export", "metatomic", "models/fold-1.safetensors", "--output", "one.pt")[0] == 0
    one = SchNetCalculator("models/fold-1.safetensors", dtype="float64")
    assert MetatomicCalculator("one.pt").get_potential_energy(ethanol) == pytest.approx(
        one.get_potential_energy(ethanol), abs=1e-9
    )


def test_driver_of_ipi(make_model: ModelFactory, crystal: Atoms, tmp_path: Path) -> None:
    pytest.importorskip("ipi", reason="pip install i-PI")
    from ipi.pes.metatomic import MetatomicDriver
    from ipi.utils.units import unit_to_internal, unit_to_user

    models = [make_model(seed) for seed in range(2)]
    write_metatomic(tmp_path / "model.pt", models, name="test")
    ase.io.write(tmp_path / "crystal.xyz", crystal)
    driver = MetatomicDriver(str(tmp_path / "crystal.xyz"), str(tmp_path / "model.pt"), energy_ensemble=True)
    bohr = unit_to_internal("length", "angstrom", 1.0)
    energy, forces, virial, extras = driver(bohr * crystal.cell.array.T, bohr * crystal.positions)
    ours = SchNetEnsembleCalculator(models, dtype="float64")
    np.testing.assert_allclose(unit_to_user("force", "ev/ang", forces), ours.get_forces(crystal), rtol=0, atol=1e-9)
    assert unit_to_user("energy", "electronvolt", energy) == pytest.approx(ours.results["energy"], abs=1e-9)
    stress = -unit_to_user("energy", "electronvolt", virial) / crystal.get_volume()
    np.testing.assert_allclose(stress.flatten()[[0, 4, 8, 5, 2, 1]], ours.results["stress"], rtol=0.0, atol=1e-9)
    assert "committee_pot" in extras
