"""The ensemble: its statistics, the keys it adds, and where its members come from."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotPresent

from schnet_ase import SchNet, SchNetCalculator, SchNetEnsembleCalculator
from schnet_ase.errors import RegistryError, StructureError
from schnet_ase.registry.card import write_card
from schnet_ase.uncertainty.calibration import forces_deviation
from tests.calculators.conftest import M
from tests.support.entries import make_entry
from tests.support.factories import ModelFactory

TOLERANCE = {"float64": 1e-11, "float32": 1e-5}


# --- statistics ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", ["ethanol", "crystal"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("norm", [None, "rms", "layer"])
def test_mean_and_spread_are_those_of_the_members(
    make_model: ModelFactory, request: pytest.FixtureRequest, system: str, dtype: str, norm: str | None
) -> None:
    atoms = request.getfixturevalue(system)
    members = [make_model(seed, norm=norm) for seed in range(M)]
    ensemble = SchNetEnsembleCalculator(members, dtype=dtype)
    ensemble.get_property("energy", atoms)
    singles = [SchNetCalculator(model, dtype=dtype) for model in members]
    properties = ["energy", "energies", "forces"] + (["stress"] if atoms.cell.rank == 3 else [])
    for name in properties:
        each = np.array([single.get_property(name, atoms) for single in singles])
        results = ensemble.results
        np.testing.assert_allclose(results[name], each.mean(axis=0), rtol=0.0, atol=TOLERANCE[dtype])
        np.testing.assert_allclose(results[f"{name}_std"], each.std(axis=0, ddof=1), rtol=0.0, atol=TOLERANCE[dtype])
        assert results[f"{name}_std"].max() > 1e-3 if np.ndim(each) > 1 else results[f"{name}_std"] > 1e-3
        if name in ("energy", "forces", "stress"):
            np.testing.assert_allclose(results[f"{name}_ensemble"], each, rtol=0.0, atol=TOLERANCE[dtype])


def test_shapes_and_dtypes(members: list[SchNet], crystal: Atoms) -> None:
    ensemble = SchNetEnsembleCalculator(members)
    ensemble.get_potential_energy(crystal)
    n = len(crystal)
    shapes = {
        "energy_std": (),
        "energies_std": (n,),
        "forces_std": (n, 3),
        "stress_std": (6,),
        "energy_ensemble": (M,),
        "forces_ensemble": (M, n, 3),
        "stress_ensemble": (M, 6),
        "forces_deviation": (n,),
    }
    for name, shape in shapes.items():
        assert np.shape(ensemble.results[name]) == shape
        assert np.asarray(ensemble.results[name]).dtype == np.float64
    uncertainties = {"energy_uncertainty", "forces_uncertainty"}  # without calibration there are none
    assert set(ensemble.results) == set(ensemble.implemented_properties) - uncertainties - {"stresses"}


def test_forces_deviation_is_the_root_of_the_summed_variances(members: list[SchNet], ethanol: Atoms) -> None:
    ensemble = SchNetEnsembleCalculator(members, dtype="float64")
    deviation = ensemble.get_property("forces_deviation", ethanol)
    forces = np.array([SchNetCalculator(model, dtype="float64").get_forces(ethanol) for model in members])
    for i in range(len(ethanol)):
        squares = sum(np.linalg.norm(member[i] - forces[:, i].mean(axis=0)) ** 2 for member in forces)
        assert deviation[i] == pytest.approx(np.sqrt(squares / (M - 1)), abs=1e-11)
    # The same as the length of the vector of standard deviations.
    np.testing.assert_allclose(deviation, np.linalg.norm(ensemble.results["forces_std"], axis=1), rtol=1e-12)


def test_forces_deviation_of_known_forces() -> None:
    # Two members a distance d apart: each is d/2 from the mean, so the deviation is d / sqrt(2).
    forces = np.zeros((2, 1, 3))
    forces[1, 0] = (0.0, 3.0, 4.0)
    assert forces_deviation(forces)[0] == pytest.approx(5.0 / np.sqrt(2.0), rel=1e-15)


def test_forces_deviation_turns_with_nothing(members: list[SchNet], ethanol: Atoms) -> None:
    ensemble = SchNetEnsembleCalculator(members, dtype="float64")
    rotated = ethanol.copy()
    rotated.rotate(50.0, (1.0, -2.0, 0.5))
    deviation, turned = (ensemble.get_property("forces_deviation", atoms) for atoms in (ethanol, rotated))
    assert deviation.max() > 1e-2
    np.testing.assert_allclose(turned, deviation, rtol=0.0, atol=1e-11)


def test_equal_members_do_not_spread(make_model: ModelFactory, ethanol: Atoms) -> None:
    ensemble = SchNetEnsembleCalculator([make_model(), make_model()], dtype="float64")
    assert ensemble.get_property("energy_std", ethanol) == 0.0
    assert (ensemble.results["forces_deviation"] == 0.0).all()
    assert ensemble.get_potential_energy(ethanol) == pytest.approx(
        SchNetCalculator(make_model(), dtype="float64").get_potential_energy(ethanol), abs=1e-10
    )


def test_order_of_the_members_does_not_matter(members: list[SchNet], ethanol: Atoms) -> None:
    forward, backward = (SchNetEnsembleCalculator(some, dtype="float64") for some in (members, members[::-1]))
    for name in ("energy", "forces", "energy_std", "forces_deviation"):
        np.testing.assert_allclose(
            forward.get_property(name, ethanol), backward.get_property(name, ethanol), rtol=0.0, atol=1e-11
        )
    np.testing.assert_allclose(
        forward.results["energy_ensemble"], backward.results["energy_ensemble"][::-1], rtol=0.0, atol=1e-11
    )


# --- the extra keys -----------------------------------------------------------------------------------------------


def extra(calc: SchNetEnsembleCalculator) -> dict[str, np.ndarray]:
    """The extra results under the names that `annotate` gives them."""
    values = {}
    for name in calc.results:
        if name.endswith(("_std", "_deviation", "_uncertainty")) or name in ("energy_ensemble", "stress_ensemble"):
            values[f"schnet_{name}"] = np.array(calc.results[name])
    for m, forces in enumerate(calc.results["forces_ensemble"]):
        values[f"schnet_forces_{m}"] = forces
    return values


@pytest.mark.parametrize("suffix", ["extxyz", "traj"])
@pytest.mark.parametrize("n", [8, 9])
@pytest.mark.parametrize("periodic", [False, True])
def test_annotations_survive_files(
    members: list[SchNet], ethanol: Atoms, tmp_path: Path, suffix: str, n: int, periodic: bool
) -> None:
    atoms = ethanol[:n]
    if periodic:
        atoms.set_cell([6.0, 6.5, 7.0])
        atoms.pbc = True
    atoms.calc = SchNetEnsembleCalculator(members)
    atoms.get_forces()
    atoms.calc.annotate(atoms)
    file = tmp_path / f"atoms.{suffix}"
    ase.io.write(file, atoms)
    back = ase.io.read(file)
    assert ("schnet_stress_std" in back.info) == periodic
    for name, value in extra(atoms.calc).items():
        if suffix == "traj" and name in atoms.arrays:
            continue  # ASE's trajectories keep no arrays but its own
        assert name in back.info or name in back.arrays, f"{name} is lost"
        stored = back.arrays[name] if name in back.arrays else back.info[name]
        np.testing.assert_allclose(stored, value, rtol=0.0, atol=1e-8)
    np.testing.assert_allclose(back.get_forces(), atoms.get_forces(), rtol=0.0, atol=1e-8)


def test_annotations_are_copies(members: list[SchNet], ethanol: Atoms) -> None:
    ethanol.calc = SchNetEnsembleCalculator(members)
    ethanol.get_forces()
    ethanol.calc.annotate(ethanol)
    before = extra(ethanol.calc)
    for values in (ethanol.info, ethanol.arrays):
        for name in [name for name in values if name.startswith("schnet_")]:
            if isinstance(values[name], np.ndarray):
                values[name] += 1.0
    for name, value in extra(ethanol.calc).items():
        np.testing.assert_array_equal(value, before[name])


def test_annotating_leaves_nothing_of_another_ensemble(members: list[SchNet], ethanol: Atoms) -> None:
    ethanol.cell, ethanol.pbc = [8.0, 8.0, 8.0], True
    ethanol.info |= {"schnet_energy_uncertainty": 1.0, "of_mine": 2.0}
    ethanol.calc = SchNetEnsembleCalculator(members)
    ethanol.get_stress()
    ethanol.calc.annotate(ethanol)
    ethanol.cell, ethanol.pbc = None, False
    ethanol.calc = SchNetEnsembleCalculator(members[:2])
    ethanol.get_forces()
    ethanol.calc.annotate(ethanol)
    names = {name for name in (*ethanol.info, *ethanol.arrays) if name.startswith("schnet_")}
    assert names == set(extra(ethanol.calc))
    assert ethanol.info["of_mine"] == 2.0


def test_annotating_again_replaces(members: list[SchNet], ethanol: Atoms) -> None:
    ethanol.calc = SchNetEnsembleCalculator(members)
    for seed in range(2):
        ethanol.rattle(0.1, seed=seed)
        ethanol.get_forces()
        ethanol.calc.annotate(ethanol)
    np.testing.assert_array_equal(ethanol.arrays["schnet_forces_deviation"], ethanol.calc.results["forces_deviation"])
    assert ethanol.info["schnet_energy_std"] == ethanol.calc.results["energy_std"]


def test_annotate_refuses_before_the_first_calculation(members: list[SchNet], ethanol: Atoms) -> None:
    with pytest.raises(PropertyNotPresent, match="annotate"):
        SchNetEnsembleCalculator(members).annotate(ethanol)


def test_annotate_refuses_atoms_that_moved(members: list[SchNet], ethanol: Atoms) -> None:
    ethanol.calc = SchNetEnsembleCalculator(members)
    ethanol.get_forces()
    ethanol.positions[0, 0] += 0.01
    with pytest.raises(PropertyNotPresent, match="annotate"):
        ethanol.calc.annotate(ethanol)
    assert not ethanol.info


def test_exported_properties_hold_all_results(members: list[SchNet], crystal: Atoms) -> None:
    ensemble = SchNetEnsembleCalculator(members)
    ensemble.get_potential_energy(crystal)
    exported = ensemble.export_properties()
    assert set(ensemble.results) <= set(exported)
    assert len(exported) == len(list(exported)) == len(dict(exported))


def test_unknown_property_is_refused(members: list[SchNet], ethanol: Atoms) -> None:
    ethanol.calc = SchNetEnsembleCalculator(members)
    with pytest.raises(ValueError, match="dipole"):
        ethanol.get_properties(["dipole"])


# --- where members come from --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["folder", "strings", "paths", "iterator", "mixed", "modules"])
def test_members_from_anywhere(folder: Path, members: list[SchNet], ethanol: Atoms, form: str) -> None:
    files = sorted(folder.glob("*.safetensors"))
    forms = {
        "folder": folder,
        "strings": [str(file) for file in files],
        "paths": files,
        "iterator": iter(files),
        "mixed": [files[0], members[1], str(files[2])],
        "modules": members,
    }
    energies = SchNetEnsembleCalculator(forms[form], dtype="float64").get_property("energy_ensemble", ethanol)
    expected = [SchNetCalculator(model, dtype="float64").get_potential_energy(ethanol) for model in members]
    np.testing.assert_allclose(energies, expected, rtol=0.0, atol=1e-10)


@pytest.mark.parametrize("form", ["folder", "list", "iterator"])
def test_todict_makes_the_same_calculator_from_files(
    folder: Path, ethanol: Atoms, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.chdir(folder.parent)
    files = [f"ensemble/fold-{m}.safetensors" for m in range(M)]
    given = {"folder": "ensemble", "list": files, "iterator": iter(files)}[form]
    ensemble = SchNetEnsembleCalculator(given, dtype="float64", skin=0.7, device=torch.device("cpu"))
    monkeypatch.chdir("/")
    again = SchNetEnsembleCalculator(**json.loads(json.dumps(ensemble.todict())))
    assert again.todict() == ensemble.todict()
    np.testing.assert_array_equal(
        again.get_property("forces_ensemble", ethanol), ensemble.get_property("forces_ensemble", ethanol)
    )


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_members_are_refused(members: list[SchNet], count: int) -> None:
    with pytest.raises(RegistryError, match="at least two") as error:
        SchNetEnsembleCalculator(members[:count])
    assert "\n" not in str(error.value)


def test_members_of_different_configs_are_refused(make_model: ModelFactory) -> None:
    with pytest.raises(StructureError, match="member 1 has another config"):
        SchNetEnsembleCalculator([make_model(), make_model(n_features=8)])


def test_members_of_entries_with_different_levels_of_theory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCHNET_ASE_MODELS", str(tmp_path))
    for name, level in (("a", "PBE/def2-SVP"), ("b", "ωB97X/6-31G*"), ("c", "PBE/def2-SVP"), ("d", "not stated")):
        card = make_entry(tmp_path, name)
        write_card(replace(card, data=replace(card.data, level_of_theory=level)), card.path)
    file = str(tmp_path / "b" / "fold-0.safetensors")
    for models in (["a", "b"], ["a/fold-1", tmp_path / "b"], [tmp_path / "a", file], json.dumps(["a", file])):
        with pytest.raises(StructureError, match="a PBE/def2-SVP, b ωB97X.*give those of one"):
            SchNetEnsembleCalculator(models)
    for models in (["a", "c"], ["a", "d/fold-0"]):
        SchNetEnsembleCalculator(models)


@pytest.mark.parametrize("models", [None, 5, ["rmd17-ethanol", None]])
def test_what_is_no_model_is_refused(models: Any) -> None:
    with pytest.raises(ValueError, match="model is (None|5); expected the name or folder of an entry"):
        SchNetEnsembleCalculator(models)


def test_a_list_of_one_entry_is_that_entry() -> None:
    named = SchNetEnsembleCalculator("rmd17-ethanol")
    for models in (["rmd17-ethanol"], '["rmd17-ethanol"]'):
        listed = SchNetEnsembleCalculator(models)
        assert listed.calibration == named.calibration is not None
        assert listed.todict() == named.todict()


def test_a_folder_whose_name_looks_like_a_list(folder: Path, ethanol: Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    energy = SchNetEnsembleCalculator(folder).get_potential_energy(ethanol)
    folder.rename("[run]")
    assert SchNetEnsembleCalculator("[run]").get_potential_energy(ethanol) == energy


def test_a_folder_without_members_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="no .safetensors files"):
        SchNetEnsembleCalculator(tmp_path)


def test_elements_are_those_that_all_members_know(members: list[SchNet], ethanol: Atoms) -> None:
    members[0].elements = (1, 6, 8)
    members[1].elements = (1, 6)
    ensemble = SchNetEnsembleCalculator(members)
    with pytest.raises(StructureError, match="not trained on O; it knows H, C"):
        ensemble.get_potential_energy(ethanol)
    members[1].elements = (1, 6, 7, 8)
    assert np.isfinite(SchNetEnsembleCalculator(members).get_potential_energy(ethanol))
