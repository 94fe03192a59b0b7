"""Copies share the weights; pickles name the models where they have a name."""

import copy
import gc
import pickle
import weakref
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator

from schnet_ase import SchNet, SchNetCalculator, SchNetEnsembleCalculator, predict, save_model
from schnet_ase.calculators.fixed import FixedCalculator
from schnet_ase.calculators.members import gather
from schnet_ase.errors import RegistryError
from schnet_ase.output.files import sha256
from tests.support.calculations import DTYPES, ENGINES
from tests.support.entries import make_entry, one_line
from tests.support.factories import CalculatorFactory, ModelFactory


def calculator(source: object, **arguments: object) -> FixedCalculator:
    kind = SchNetCalculator if str(source).endswith((".safetensors", "/student")) else SchNetEnsembleCalculator
    return kind(source, **arguments)


def networks(calc: FixedCalculator) -> object:
    return calc._evaluator.networks


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("which", ["folder", "one file"])
def test_pickle_names_the_files(
    folder: Path, members: list[SchNet], ethanol: Atoms, which: str, dtype: str, engine: str
) -> None:
    source = folder if which == "folder" else folder / "fold-1.safetensors"
    ethanol.calc = calculator(source, dtype=dtype, engine=engine)
    forces = ethanol.get_forces()
    content = pickle.dumps(ethanol)
    assert len(content) < 10_000
    again = pickle.loads(content)
    assert type(again.calc) is type(ethanol.calc)
    assert again.calc.todict() == ethanol.calc.todict()
    assert again.calc.engine == ethanol.calc.engine
    assert set(again.calc.results) == set(ethanol.calc.results)
    assert not again.calc.check_state(again), "the results are still those of the atoms"
    for atoms in (again, ethanol):
        atoms.rattle(0.05, seed=4)
    np.testing.assert_array_equal(again.get_forces(), ethanol.get_forces())
    assert np.abs(again.get_forces() - forces).max() > 0.0


def test_pickle_of_a_shipped_ensemble_is_small() -> None:
    for arguments in ({"dtype": "float64"}, {}):
        calc = SchNetEnsembleCalculator("rmd17-ethanol", **arguments)
        assert len(pickle.dumps(calc)) < 10_000
        again = pickle.loads(pickle.dumps(calc))
        assert again.calibration == calc.calibration is not None
    calc.calibration = None
    assert pickle.loads(pickle.dumps(calc)).calibration is None, "what a user has set"
    student = pickle.loads(pickle.dumps(SchNetCalculator("rmd17-ethanol")))
    assert student.calibration is not None


def test_other_files_of_that_name_are_an_error(folder: Path, make_model: ModelFactory) -> None:
    content = pickle.dumps(SchNetEnsembleCalculator(folder))
    save_model(make_model(17), folder / "fold-1.safetensors")
    with pytest.raises(RegistryError, match="SHA-256") as caught:
        pickle.loads(content)
    assert str(folder) in one_line(caught)
    (folder / "fold-1.safetensors").unlink()
    with pytest.raises(RegistryError, match="SHA-256"):
        pickle.loads(content)


def test_a_name_that_stands_for_another_entry_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_entry(tmp_path / "here")
    make_entry(tmp_path / "there")  # other random weights
    monkeypatch.setenv("SCHNET_ASE_MODELS", str(tmp_path / "here"))
    content = pickle.dumps(SchNetEnsembleCalculator("ethanol"))
    pickle.loads(content)
    monkeypatch.setenv("SCHNET_ASE_MODELS", str(tmp_path / "there"))
    with pytest.raises(RegistryError, match="ethanol: the SHA-256"):
        pickle.loads(content)


def test_modules_in_memory_are_pickled_whole(make_calculator: CalculatorFactory, crystal: Atoms) -> None:
    calc = make_calculator(dtype="float64")
    stress = calc.get_stress(crystal)
    again = pickle.loads(pickle.dumps(calc))
    np.testing.assert_array_equal(again.results["stress"], stress)
    again.reset()
    np.testing.assert_array_equal(again.get_stress(crystal), stress)


@pytest.mark.parametrize("how", ["copy", "deepcopy", "constructor", "pickle"])
@pytest.mark.parametrize("engine", ENGINES)
def test_weights_are_shared_and_nothing_else(folder: Path, crystal: Atoms, engine: str, how: str) -> None:
    first = SchNetEnsembleCalculator(folder, engine=engine, dtype="float64")
    crystal.calc = first
    forces = crystal.get_forces().copy()
    second: Calculator = {
        "copy": first.copy,
        "deepcopy": lambda: copy.deepcopy(first),
        "constructor": lambda: SchNetEnsembleCalculator(folder, engine=engine, dtype="float64"),
        "pickle": lambda: pickle.loads(pickle.dumps(first)),
    }[how]()
    assert networks(second) is networks(first)
    if engine == "compiled":
        assert second._evaluator.backend._weights is first._evaluator.backend._weights
    moved = crystal.copy()
    moved.rattle(0.2, seed=5)
    expected = SchNetEnsembleCalculator(folder, engine=engine, dtype="float64").get_forces(moved)
    for _ in range(2):  # in turns, each with its own atoms
        # A copy keeps the neighbour list too, in which pairs may have another order.
        np.testing.assert_allclose(second.get_forces(moved), expected, rtol=0.0, atol=1e-12)
        np.testing.assert_array_equal(first.get_forces(crystal), forces)
    second.results["forces"][:] = 0.0
    np.testing.assert_array_equal(first.results["forces"], forces)


def test_both_precisions_share_the_networks_and_have_their_own_tables(folder: Path) -> None:
    single, double = (SchNetEnsembleCalculator(folder, engine="compiled", dtype=dtype) for dtype in DTYPES)
    assert networks(single) is networks(double)
    assert single._evaluator.backend._weights is not double._evaluator.backend._weights


def test_networks_go_with_their_last_calculator(folder: Path) -> None:
    calc = SchNetEnsembleCalculator(folder)
    twin, kept = calc.copy(), weakref.ref(networks(calc))
    del calc
    gc.collect()
    assert kept() is networks(twin)
    del twin
    gc.collect()
    assert kept() is None


def test_a_changed_file_is_read_again(folder: Path, make_model: ModelFactory, ethanol: Atoms) -> None:
    old = SchNetEnsembleCalculator(folder)
    before = old.get_potential_energy(ethanol)
    save_model(make_model(17), folder / "fold-1.safetensors")
    assert SchNetEnsembleCalculator(folder).get_potential_energy(ethanol) != before
    assert old.get_potential_energy(ethanol) == before


def test_a_module_that_is_trained_on_does_not_change_a_calculator(members: list[SchNet], ethanol: Atoms) -> None:
    calc = SchNetEnsembleCalculator(members)
    before = calc.get_potential_energy(ethanol)
    members[0].scale.fill_(7.0)
    calc.reset()
    assert calc.get_potential_energy(ethanol) == before
    assert SchNetEnsembleCalculator(members).get_potential_energy(ethanol) != before


def test_hashes_are_those_of_the_files(folder: Path) -> None:
    files = sorted(folder.glob("*.safetensors"))
    assert gather(folder).hashes == tuple(sha256(file) for file in files)
    assert gather([str(file) for file in reversed(files)]).hashes == tuple(sha256(file) for file in reversed(files))


def test_prediction_shares_them_too(folder: Path, ethanol: Atoms) -> None:
    calc = SchNetEnsembleCalculator(folder)
    (prediction,) = predict(folder, [ethanol])
    assert prediction.forces == pytest.approx(calc.get_forces(ethanol), abs=1e-5)
