"""Threads that work on calls together: each call by all, failures told, nobody kept awake for ever."""

import time

import pytest

from schnet_ase import SchNetCalculator
from schnet_ase.engine.team import Team


def _until(condition):
    end = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_every_thread_runs_every_call():
    team, found = Team(3), []
    for n in range(200):
        team.call(lambda thread, n=n: found.append((n, thread)))
        _until(lambda n=n: len(found) == 2 * (n + 1))
    assert sorted(found) == [(n, thread) for n in range(200) for thread in (1, 2)]


def test_a_thread_that_failed_is_told_of_and_works_again():
    team, found = Team(2), []

    def fail(thread):
        raise RuntimeError("no")

    (future,) = team.call(fail)
    with pytest.raises(RuntimeError, match="no"):
        future.result(timeout=60.0)
    team.call(found.append)
    _until(lambda: found == [1])


def test_a_team_is_of_its_size():
    assert Team(2).serves(2)
    assert not Team(2).serves(3)


def test_threads_go_to_sleep_after_a_call_and_wake_for_the_next(make_model, crystal):
    calculator = SchNetCalculator(make_model(0), engine="compiled", threads=3)
    first = calculator.get_forces(crystal)
    team = calculator._evaluator._backend._team
    for _ in range(3):
        _until(lambda: not team._at_work)
        calculator.calculate(crystal)
        assert (calculator.results["forces"] == first).all()
    assert calculator._evaluator._backend._team is team
