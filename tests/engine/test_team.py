"""Threads that work on calls together: each call by all, failures told, nothing kept alive or in memory."""

import gc
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
from numba import njit

from schnet_ase import SchNetCalculator
from schnet_ase.engine import barrier
from schnet_ase.engine.team import Team

take = njit(barrier.take.py_func)  # for Python to call


def until(condition):
    end = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("threads", [2, 4])
def test_every_thread_runs_every_call(threads):
    team, found = Team(4), []
    for n in range(200):
        team.call(lambda thread, n=n: found.append((n, thread)), threads)
        until(lambda n=n: len(found) == (threads - 1) * (n + 1))
        team.check()
    assert sorted(found) == [(n, thread) for n in range(200) for thread in range(1, threads)]


def test_a_thread_that_failed_is_told_of_and_works_again():
    team, found = Team(2), []

    def fail(thread):
        raise RuntimeError("no")

    def failed():
        try:
            team.check()
        except RuntimeError:
            return True
        return False

    team.call(fail, 2)
    until(failed)
    team.call(found.append, 2)
    until(lambda: found == [1])
    team.check()


def test_a_team_serves_as_many_as_it_has():
    team = Team(2)
    assert team.serves(1)
    assert team.serves(2)
    assert not team.serves(3)


@njit(nogil=True)
def take_all(claimed, items, threads, thread, taken):
    item = take(claimed, 1, items, threads, thread)
    while item >= 0:
        taken[thread, item] += 1
        item = take(claimed, 1, items, threads, thread)


@pytest.mark.parametrize("items", [0, 2, 1_000_001])
def test_each_item_is_one_threads(items):
    threads = 3
    claimed, taken = np.zeros(2 * threads, np.int64), np.zeros((threads, items), np.int64)
    team = Team(threads)
    team.call(lambda thread: take_all(claimed, items, threads, thread, taken), threads)
    take_all(claimed, items, threads, 0, taken)
    until(lambda: team._calls._left == 0)
    team.check()
    assert (taken.sum(axis=0) == 1).all()
    assert not claimed[:threads].any()  # of another stage


def test_a_thread_takes_its_own_items_first_then_those_of_others():
    claimed = np.zeros(6, np.int64)
    order = [take(claimed, 0, 7, 3, 1) for _ in range(8)]
    assert order == [2, 3, 4, 5, 6, 0, 1, -1]


def test_threads_end_with_the_team():
    before = set(threading.enumerate())
    team = Team(3)
    ours = set(threading.enumerate()) - before
    assert len(ours) == 2
    del team
    gc.collect()
    for thread in ours:
        thread.join(timeout=60.0)
    assert not any(thread.is_alive() for thread in ours)


def test_a_call_s_memory_is_let_go():
    team, held = Team(2), np.zeros(10)
    reference = weakref.ref(held)
    team.call(lambda thread, held=held: None, 2)
    del held
    until(lambda: reference() is None)


def test_threads_sleep_after_a_call_and_wake_for_the_next(make_model, crystal):
    calculator = SchNetCalculator(make_model(0), engine="compiled", threads=3)
    first = calculator.get_forces(crystal)
    team = calculator._evaluator.backend._team
    for _ in range(3):
        until(lambda: team._calls._left == 0)
        calculator.calculate(crystal)
        assert (calculator.results["forces"] == first).all()
    assert calculator._evaluator.backend._team is team


def test_a_program_ends_while_a_thread_of_it_runs_dynamics():
    """A thread that keeps no program alive does not do so through the threads that help it."""
    program = """
import threading, time
from schnet_ase.engine.team import Team

def work():
    team, done = Team(2), threading.Event()
    while True:
        done.clear()
        team.call(lambda thread: done.set(), 2)
        done.wait()

threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=120, check=False).returncode == 0
