"""The calibrated uncertainty of a registry entry's ensemble."""

import copy
import json
import pickle
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError

from schnet_ase import SchNet, SchNetEnsembleCalculator, save_model
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import Card, Member, Metrics, Structure, TrainingData, write_card
from schnet_ase.uncertainty.calibration import Calibration
from schnet_ase.uncertainty.errors import ensemble_errors
from schnet_ase.uncertainty.fit import calibrate
from schnet_ase.uncertainty.metrics import Errors
from tests.support.factories import ModelFactory


def calibration_of(members: tuple[str, ...]) -> Calibration:
    """From forty frames of random numbers about as large as what the members say."""
    rng = np.random.default_rng(0)
    energy, forces = rng.normal(size=(4, 40)), rng.normal(size=(4, 40 * 9, 3))
    numbers = np.tile(molecule("CH3CH2OH").numbers, 40)
    errors = ensemble_errors(np.full(40, 9), numbers, energy, rng.normal(size=40), forces, rng.normal(size=(40 * 9, 3)))
    return calibrate(errors, coverage=0.9, file="data.xyz", sha256="0", members=members)


@pytest.fixture
def entry(make_model: ModelFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    """A registry entry ``known`` of four members, with a calibration."""
    folder = tmp_path / "models" / "known"
    errors = Errors(1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)
    members = []
    for m in range(4):
        file = folder / f"fold-{m}.safetensors"
        save_model(make_model(m), file)
        members.append(Member(file.name, sha256(file), errors, None, 1.0))
    card = Card(
        name="known",
        elements=("H", "C", "O"),
        data=TrainingData("", "data.xyz", "0", None, None, "eV", "none", "none", "none", 40, 0.0, 1.0, "none"),
        members=tuple(members),
        metrics=Metrics(None, None),
        structure=Structure.from_atoms(molecule("CH3CH2OH")),
        command="none",
        versions={},
        calibration=calibration_of(tuple(m.sha256 for m in members)),
        path=folder,
    )
    write_card(card, folder)
    monkeypatch.setenv("SCHNET_ASE_MODELS", str(folder.parent))
    return card


@pytest.mark.parametrize("form", ["name", "folder", "path"])
def test_uncertainty_is_the_half_width_of_the_card(entry: Card, ethanol: Atoms, form: str) -> None:
    models = {"name": "known", "folder": str(entry.path), "path": entry.path}[form]
    ethanol.calc = SchNetEnsembleCalculator(models)
    ethanol.get_forces()
    results, calibration = ethanol.calc.results, entry.calibration
    of_a_cell = {"stress", "stress_std", "stress_ensemble"}
    assert set(results) == set(ethanol.calc.implemented_properties) - of_a_cell - {"stresses"}
    assert results["energy_uncertainty"] == calibration.energy.half_width(results["energy_std"], 0.9)
    assert isinstance(results["energy_uncertainty"], float)
    assert sorted(calibration.element_factors) == ["C", "H", "O"]
    scaled = [
        d * calibration.element_factors[a.symbol] for d, a in zip(results["forces_deviation"], ethanol, strict=True)
    ]
    expected = calibration.forces.half_width(np.array(scaled), 0.9)
    np.testing.assert_allclose(results["forces_uncertainty"], expected, rtol=1e-14)
    assert results["forces_uncertainty"].shape == (9,)
    assert results["forces_uncertainty"].dtype == np.float64
    assert (expected > 0).all()


def test_means_and_spreads_do_not_depend_on_the_calibration(entry: Card, ethanol: Atoms) -> None:
    with_it, without = (SchNetEnsembleCalculator("known", calibration=c) for c in ("auto", None))
    assert with_it.get_potential_energy(ethanol) == without.get_potential_energy(ethanol)
    assert set(with_it.results) - set(without.results) == {"energy_uncertainty", "forces_uncertainty"}
    for name, value in without.results.items():
        np.testing.assert_array_equal(with_it.results[name], value)


def test_no_uncertainty_without_calibration(entry: Card, members: list[SchNet], folder: Path, ethanol: Atoms) -> None:
    files = [entry.path / m.file for m in entry.members]
    for models in (members, folder, files, [str(f) for f in files]):
        ethanol.calc = SchNetEnsembleCalculator(models)
        ethanol.get_forces()
        assert ethanol.calc.calibration is None
        assert not {"energy_uncertainty", "forces_uncertainty"} & set(ethanol.calc.results)
        with pytest.raises(PropertyNotImplementedError):
            ethanol.calc.get_property("forces_uncertainty", ethanol)


def test_calibration_that_is_none(entry: Card) -> None:
    with pytest.raises(ValueError, match="expected 'auto' or None"):
        SchNetEnsembleCalculator("known", calibration="yes")


def test_periodic_atoms_have_an_uncertainty_too(entry: Card, crystal: Atoms) -> None:
    crystal = Atoms("OCHO", scaled_positions=crystal.get_scaled_positions(), cell=crystal.cell, pbc=True)
    crystal.calc = SchNetEnsembleCalculator("known")
    crystal.get_stress()
    assert set(crystal.calc.results) == set(crystal.calc.implemented_properties) - {"stresses"}


@pytest.mark.parametrize("how", ["copy", "pickle", "todict"])
@pytest.mark.parametrize("calibration", ["auto", None])
def test_uncertainty_survives(entry: Card, ethanol: Atoms, how: str, calibration: str | None) -> None:
    calc = SchNetEnsembleCalculator("known", calibration=calibration)
    if how == "copy":
        again = copy.deepcopy(calc)
    elif how == "pickle":
        again = pickle.loads(pickle.dumps(calc))
    else:
        again = SchNetEnsembleCalculator(**json.loads(json.dumps(calc.todict())))
    assert again.todict() == calc.todict()
    for one in (calc, again):
        one.get_potential_energy(ethanol)
    assert ("forces_uncertainty" in again.results) == (calibration == "auto")
    assert set(again.results) == set(calc.results)
    for name, value in calc.results.items():
        np.testing.assert_array_equal(again.results[name], value)


def test_uncertainty_is_among_the_properties(entry: Card, ethanol: Atoms) -> None:
    ethanol.calc = SchNetEnsembleCalculator("known")
    properties = ethanol.get_properties(["energy", "forces_uncertainty"])
    np.testing.assert_array_equal(properties["forces_uncertainty"], ethanol.calc.results["forces_uncertainty"])
    assert ethanol.calc.export_properties()["energy_uncertainty"] == ethanol.calc.results["energy_uncertainty"]


@pytest.mark.parametrize("suffix", ["extxyz", "traj", "json", "db"])
def test_uncertainty_in_files(entry: Card, ethanol: Atoms, tmp_path: Path, suffix: str) -> None:
    """Written without error by all; kept by extxyz in whole, by traj what is in ``info``."""
    ethanol.calc = SchNetEnsembleCalculator("known")
    ethanol.get_forces()
    ethanol.calc.annotate(ethanol)
    ase.io.write(tmp_path / f"atoms.{suffix}", ethanol)
    back = ase.io.read(tmp_path / f"atoms.{suffix}")
    assert back.get_potential_energy() == pytest.approx(ethanol.get_potential_energy(), abs=1e-8)
    if suffix in ("extxyz", "traj"):
        assert back.info["schnet_energy_uncertainty"] == pytest.approx(ethanol.calc.results["energy_uncertainty"])
    if suffix == "extxyz":
        np.testing.assert_allclose(
            back.arrays["schnet_forces_uncertainty"], ethanol.calc.results["forces_uncertainty"], atol=1e-8
        )
