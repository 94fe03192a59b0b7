"""All starts are looked at together, and one that is refused does not hide the others."""

import logging

import numpy as np
import pytest
from ase import Atoms

from schnet_ase import Predictor, SchNetEnsembleCalculator, structure
from schnet_ase.cli.doubts import say_what_is_strange_of_many
from schnet_ase.simulation.starts import starts

MODEL = "rmd17-ethanol"


@pytest.fixture
def frames() -> list[Atoms]:
    """Two ethanols, one with an element that the model does not know, a stretched one, one with NaN, an ethanol."""
    ethanol = structure(MODEL)
    stretched, broken = ethanol.copy(), ethanol.copy()
    stretched.positions *= 1.3
    broken.positions[3, 1] = np.nan
    moved = [ethanol.copy() for _ in range(3)]
    for seed, atoms in enumerate(moved):
        atoms.rattle(0.005, seed=seed)
    return [moved[0], moved[1], Atoms("CU", [(0, 0, 0), (2, 0, 0)]), stretched, broken, moved[2]]


def test_each_start_is_what_the_calculator_says(frames: list[Atoms]) -> None:
    found = starts(Predictor(MODEL, dtype="float64"), frames)
    assert [start.number for start in found] == list(range(6))
    assert "not trained on U" in found[2].refusal
    assert found[4].refusal.startswith("position of atom 3 is")
    calculator = SchNetEnsembleCalculator(MODEL, dtype="float64")
    for n in (0, 1, 3, 5):
        assert found[n].refusal == ""
        expected = calculator.get_property("forces_deviation", frames[n]).max()
        assert found[n].deviation == pytest.approx(expected, abs=1e-10)


def test_a_single_network_has_no_deviation(frames: list[Atoms]) -> None:
    (found,) = starts(Predictor(f"{MODEL}/fold-1"), frames[:1])
    assert found.refusal == ""
    assert np.isnan(found.deviation)


def test_a_command_names_refused_and_uncertain_starts(frames: list[Atoms], caplog: pytest.LogCaptureFixture) -> None:
    calculator = SchNetEnsembleCalculator(MODEL)
    with caplog.at_level(logging.WARNING, "schnet_ase"):
        say_what_is_strange_of_many(MODEL, [frames[k] for k in (0, 1, 3, 5)], calculator, moving=False)
    (line,) = [record.getMessage() for record in caplog.records if "forces_deviation" in record.getMessage()]
    assert line.startswith("the forces_deviation of 1 of the 4 structures")
    assert line.endswith("of structure 2")
    caplog.clear()
    with caplog.at_level(logging.WARNING, "schnet_ase"):
        say_what_is_strange_of_many(MODEL, [frames[0], frames[1], frames[2]], calculator, moving=False)
    lines = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("the model refuses 1 of the 3 structures; structure 2: ") for line in lines)


def test_warnings_about_many_name_the_structure(frames: list[Atoms], caplog: pytest.LogCaptureFixture) -> None:
    calculator = SchNetEnsembleCalculator(MODEL)
    ion, unknown = frames[1], frames[2]
    ion.info.update(name="cation", charge=1)
    with caplog.at_level(logging.INFO, "schnet_ase"):
        say_what_is_strange_of_many(MODEL, [unknown, frames[4], frames[0], ion], calculator, moving=False)
    lines = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("structure 3 (cation): it states a charge of +1 e") for line in lines)
    assert not any(line.startswith(("structure 0", "structure 1")) for line in lines)  # refused, which is said of all
