"""Small measurements: every way has its turn, and what is compared is the same thing."""

import numpy as np
import pytest
from click.testing import CliRunner
from micro import SUBJECTS, Measured, Turns, check_same, flying, main, network, random_systems, run

from schnet_ase.engine import compiled_half_list
from schnet_ase.errors import SchNetError
from schnet_ase.geometry.neighbors import half_neighbor_list
from schnet_ase.geometry.system import Geometry
from schnet_ase.training.step.filters import steps_for


def table(*arguments: str) -> list[list[str]]:
    """The rows that a subject prints."""
    result = CliRunner().invoke(main, [*arguments, "--rounds", "1", "--steps", "3"])
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("| ")]
    rows = [line.strip("| ").split(" | ") for line in lines if "---" not in line]
    assert {len(row) for row in rows} == {len(rows[0])}
    return rows[1:]


def test_ways_take_turns_and_every_other_round_is_backwards():
    order: list[str] = []
    now = iter(range(0, 100, 2))
    times = Turns(3, 4).take([lambda: order.append("a"), lambda: order.append("b")], lambda: next(now))
    assert "".join(order) == "abbaab"
    np.testing.assert_array_equal(times, np.full((3, 2), 500.0))


def test_ratio_is_the_median_of_the_rounds_own():
    times = np.array([[1.0, 2.0], [2.0, 6.0], [4.0, 16.0]])
    assert list(Measured(("x",), times).cells(ratios=True)) == ["x", "2", "6", "3.000 (2.500 to 3.500)"]


@pytest.mark.parametrize("name", ["monitor", "parts", "watch"])
def test_dynamics(name):
    rows = table(name, "rmd17-ethanol")
    assert [row[0] for row in rows] == ["rmd17-ethanol"] * (2 if name == "parts" else 1)
    assert all(float(cell.split()[0]) > 0.0 for row in rows for cell in row[1:])


def test_threads():
    rows = table("threads", "3", "4")
    assert [row[:2] for row in rows] == [["81", "1"], ["81", "5"], ["192", "1"], ["192", "5"]]
    for *_, one, several, ratio in rows:
        assert float(ratio.split()[0]) == pytest.approx(float(several) / float(one), rel=0.01)


def test_networks_whose_threads_are_compared_are_calm():
    """The atoms of both dynamics fly alike, and keep their speed: as many pairs and lists for one thread as for two."""
    dynamics = flying(4, 1, 1)
    before = dynamics.atoms.get_kinetic_energy()
    dynamics.run(40)
    assert dynamics.atoms.get_kinetic_energy() == pytest.approx(before, rel=0.05)


def test_searches_that_differ_are_not_timed():
    def forgetful(positions, cell, pbc, cutoff):
        first, second, shifts = half_neighbor_list(positions, cell, pbc, cutoff)
        return first[1:], second[1:], shifts[1:]

    both = compiled_half_list, half_neighbor_list
    found = [check_same(system, cutoff, both) for system, cutoff in random_systems(20)]
    assert sum(found) > 1000
    system = Geometry(np.ones(2, np.int64), np.eye(2, 3), np.zeros((3, 3)), np.zeros(3, bool))
    with pytest.raises(SchNetError, match="1 pairs, but 0 or others by forgetful"):
        check_same(system, 5.0, (half_neighbor_list, forgetful))


def test_process_that_fails_says_why():
    with pytest.raises(SchNetError, match="no model 'rmd17-ethanl'"):
        run(("-c", "from schnet_ase import load_model; load_model('rmd17-ethanl')"))


def test_folds_side_by_side_have_the_gradients_of_folds_alone(monkeypatch):
    monkeypatch.setattr("micro.BATCH", 2)
    monkeypatch.setattr("micro.WAYS", ("eager",))
    rows = table("folds")
    assert [row[0] for row in rows] == ["ethanol", "aspirin"]
    # Those alone take filters from a table, whose slopes have its rounding errors; see test_filters.py.
    bound = 2.7 * steps_for(network(0)) * np.finfo(np.float32).eps
    assert all(0.0 < float(row[3]) < bound for row in rows)


def test_every_subject_is_explained():
    text = CliRunner().invoke(main, ["--help"]).output
    assert all(f"{name}: " in text for name in SUBJECTS)
