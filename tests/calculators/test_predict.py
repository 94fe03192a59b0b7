"""Many systems at once get the numbers that each gets from a calculator, in their order."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

import schnet_ase
from schnet_ase import Prediction, Predictor, SchNetCalculator, SchNetEnsembleCalculator, predict
from schnet_ase.errors import StructureError
from schnet_ase.inference import batched
from tests.support.calculations import DTYPES, ENGINES
from tests.support.entries import one_line
from tests.support.factories import ModelFactory

BOUNDS = {"float32": 2e-5, "float64": 1e-10}


@pytest.fixture
def systems(ethanol: Atoms, crystal: Atoms) -> list[Atoms]:
    """Molecules, crystals, a slab, a molecule in a box, far from the origin, and one atom."""
    slab = crystal.copy()
    slab.pbc = (True, True, False)
    boxed = molecule("H2O", cell=[9.0, 8.0, 7.0])
    outside = crystal.copy()
    outside.positions[1] += 3 * outside.cell[0] - 2 * outside.cell[2]
    far = ethanol.copy()
    far.positions += 1e4
    return [ethanol, crystal, Atoms("O"), slab, boxed, molecule("CH4"), outside, far, crystal * (2, 1, 1)]


def assert_like(calc: SchNetCalculator, atoms: Atoms, prediction: Prediction, bound: float) -> None:
    expected = calc.get_property("energy", atoms), calc.results
    assert prediction.energy == pytest.approx(expected[0], abs=bound * len(atoms))
    names = [n for n in ("energies", "forces", "stress") if n in calc.results]
    assert ("stress" in names) == (prediction.stress is not None) == bool(atoms.cell.rank == 3)
    for name in names:
        assert getattr(prediction, name) == pytest.approx(calc.results[name], abs=bound)
    if prediction.spread is not None:
        for name, value in prediction.spread._asdict().items():
            assert (value is None) == (name not in calc.results), name
            if value is not None:
                assert value == pytest.approx(calc.results[name], abs=bound * len(atoms)), name


@pytest.mark.parametrize("at_once", [1, 200, 1 << 14])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("engine", ENGINES)
def test_one_model(
    make_model: ModelFactory,
    systems: list[Atoms],
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    dtype: str,
    at_once: int,
) -> None:
    monkeypatch.setattr(batched, "AT_ONCE", at_once)
    model = make_model(1)
    calc = SchNetCalculator(model, engine=engine, dtype=dtype)
    predictions = predict(model, systems, engine=engine, dtype=dtype)
    assert len(predictions) == len(systems)
    for atoms, prediction in zip(systems, predictions, strict=True):
        assert prediction.spread is None
        assert_like(calc, atoms, prediction, BOUNDS[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("engine", ENGINES)
def test_an_ensemble_with_a_prior(make_model: ModelFactory, systems: list[Atoms], engine: str, dtype: str) -> None:
    members = [make_model(seed, prior="zbl") for seed in range(3)]
    squeezed = systems[0].copy()
    squeezed.positions *= 0.7  # so that nuclei repel
    calc = SchNetEnsembleCalculator(members, engine=engine, dtype=dtype)
    for atoms, prediction in zip(
        [*systems, squeezed], predict(members, [*systems, squeezed], engine=engine, dtype=dtype), strict=True
    ):
        assert_like(calc, atoms, prediction, 5 * BOUNDS[dtype])


def test_threads_share_a_call(make_model: ModelFactory, systems: list[Atoms]) -> None:
    model = make_model(1)
    one, two = (predict(model, systems * 20, engine="compiled", threads=threads) for threads in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert a.forces == pytest.approx(b.forces, abs=BOUNDS["float32"])
        assert a.energy == pytest.approx(b.energy, abs=BOUNDS["float32"] * len(a.forces))


def test_a_name_stands_for_all_members_and_their_calibration() -> None:
    atoms = schnet_ase.structure("rmd17-ethanol")
    calc = SchNetEnsembleCalculator("rmd17-ethanol")
    rattled = atoms.copy()
    rattled.rattle(0.02, seed=1)
    for each, prediction in zip([atoms, rattled], predict("rmd17-ethanol", [atoms, rattled]), strict=True):
        assert prediction.spread is not None
        assert prediction.spread.forces_uncertainty is not None
        assert prediction.spread.forces_ensemble.shape == (5, 9, 3)
        assert_like(calc, each, prediction, BOUNDS["float32"])
    (alone,) = predict("rmd17-ethanol/student", [atoms])
    assert alone.spread is None
    assert_like(SchNetCalculator("rmd17-ethanol/student"), atoms, alone, BOUNDS["float32"])
    (raw,) = predict("rmd17-ethanol", [atoms], calibration=None)
    assert raw.spread is not None
    assert raw.spread.forces_uncertainty is None


@pytest.mark.parametrize("engine", ENGINES)
def test_kept_lists_follow_the_atoms(make_model: ModelFactory, systems: list[Atoms], engine: str) -> None:
    """Dynamics of many systems: steps shorter and longer than the skin, then a cell, an order, and other systems."""
    model, rng = make_model(2), np.random.default_rng(0)
    predictor = Predictor(model, engine=engine, dtype="float64", skin=0.6)
    calc = SchNetCalculator(model, engine=engine, dtype="float64", skin=0.0)

    def check() -> None:
        for atoms, prediction in zip(systems, predictor(systems), strict=True):
            assert_like(calc, atoms, prediction, BOUNDS["float64"])

    check()
    for step in (0.01, 0.01, 0.3, 1.0):
        for atoms in systems:
            atoms.positions += rng.normal(0.0, step, atoms.positions.shape)
        check()
    systems[1].set_cell(systems[1].cell * 1.02, scale_atoms=True)
    check()
    systems.reverse()
    check()
    del systems[3:5]
    check()


def test_results_are_float64_and_independent(make_model: ModelFactory, ethanol: Atoms) -> None:
    first, second = predict(make_model(0), [ethanol, ethanol])
    assert first.forces.dtype == first.energies.dtype == np.float64
    first.forces[:] = 0.0
    assert second.forces.any()


def test_no_systems(make_model: ModelFactory) -> None:
    assert predict(make_model(0), []) == []


def test_mistakes_name_the_structure(make_model: ModelFactory, ethanol: Atoms) -> None:
    model = make_model(0)
    model.elements = (1, 6, 8)
    twice = ethanol.copy()
    twice.positions[4] = twice.positions[2]
    lost = ethanol.copy()
    lost.positions[3, 1] = np.nan
    for bad, words in (
        (molecule("NH3"), "structure 2: the model was not trained on N"),
        (twice, "structure 2: atoms 2 and 4"),
        (lost, "structure 2: position of atom 3"),
        (Atoms(), "structure 2: no atoms"),
    ):
        with pytest.raises(StructureError) as caught:
            predict(model, [ethanol, ethanol, bad, ethanol])
        assert words in one_line(caught)


def test_one_atoms_object_is_no_list(make_model: ModelFactory, ethanol: Atoms, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a list"):
        predict(make_model(0), ethanol)
    with pytest.raises(ValueError, match="structure 1 is of type str"):
        predict(make_model(0), [ethanol, "frames.xyz"])
