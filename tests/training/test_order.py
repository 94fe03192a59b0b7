"""Every epoch has every frame once, and every batch every molecule in its share."""

import numpy as np
import pytest

from schnet_ase.training.step.order import BatchOrder

ONE = np.zeros(20, dtype=int)


def test_every_frame_once_an_epoch():
    order = BatchOrder(ONE, 5, seed=1)
    steps = [order.batch(step) for step in range(8)]
    assert sorted(np.concatenate(steps[:4])) == list(range(20))
    assert sorted(np.concatenate(steps[4:])) == list(range(20))
    assert not np.array_equal(np.concatenate(steps[:4]), np.concatenate(steps[4:]))
    assert np.array_equal(BatchOrder(ONE, 5, seed=1).batch(6), steps[6]), "a step's batch depends on the step alone"
    assert np.array_equal(order.batch(2), steps[2])


def test_another_seed_gives_another_order():
    assert not np.array_equal(BatchOrder(ONE, 20, seed=0).batch(0), BatchOrder(ONE, 20, seed=1).batch(0))


def test_batch_larger_than_the_data():
    assert sorted(BatchOrder(np.zeros(3, dtype=int), 10, seed=0).batch(0)) == [0, 1, 2]


def test_what_does_not_fill_a_batch_waits():
    order = BatchOrder(np.zeros(7, dtype=int), 3, seed=0)
    assert len(set(np.concatenate([order.batch(0), order.batch(1)]))) == 6
    assert len(order.batch(2)) == 3


def test_as_many_of_every_molecule():
    molecules = np.repeat(np.arange(10), 76)
    order = BatchOrder(molecules, 10, seed=3)
    for step in range(3 * 76):
        assert sorted(molecules[order.batch(step)]) == list(range(10))


@pytest.mark.parametrize("sizes", [(60, 30, 10), (97, 2, 1), (5, 5, 90)])
def test_no_batch_is_far_from_the_shares(sizes):
    molecules = np.random.default_rng(0).permutation(np.repeat(np.arange(3), sizes))
    order = BatchOrder(molecules, 10, seed=0)
    for step in range(50):
        counts = np.bincount(molecules[order.batch(step)], minlength=3)
        # M molecules at regular distances: among b in a row one with the share s misses b s by less than 1 + M s.
        assert np.all(np.abs(counts - np.array(sizes) / 10) < 1 + 3 * np.array(sizes) / 100)


def test_frames_of_a_molecule_come_in_random_order():
    molecules = np.repeat(np.arange(2), 500)
    order = BatchOrder(molecules, 1000, seed=0).batch(0)
    first = order[molecules[order] == 0]
    assert sorted(first) == list(range(500))
    assert abs(np.corrcoef(first, np.arange(500))[0, 1]) < 5 / np.sqrt(500)


def test_molecules_that_occur_once_are_spread_at_random():
    firsts = [BatchOrder(np.arange(8), 8, seed).batch(0)[0] for seed in range(800)]
    counts = np.bincount(firsts, minlength=8)
    # 100 each with a standard deviation of 9.4.
    assert np.all(np.abs(counts - 100) < 5 * 9.4)
