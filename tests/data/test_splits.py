"""Splits: every frame once and only once, the same for the same seed, and calibration frames that no fold saw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schnet_ase.data import held_out, split_folds, split_training
from schnet_ase.errors import DataError

SEEDS = st.integers(0, 2**32)
QUICK = settings(max_examples=60, deadline=None)


def as_sets(*indices: np.ndarray) -> list[set[int]]:
    """As sets; an index that is there twice is an error."""
    for array in indices:
        assert len(set(array.tolist())) == len(array)
    return [set(array.tolist()) for array in indices]


@QUICK
@given(data=st.data(), n_frames=st.integers(2, 300), seed=SEEDS)
def test_training_and_validation_are_disjoint_and_complete(data: st.DataObject, n_frames: int, seed: int) -> None:
    n_validation = data.draw(st.integers(1, n_frames - 1))
    split = split_training(n_frames, n_validation, seed)
    training, validation = as_sets(*split)
    assert not training & validation
    assert training | validation == set(range(n_frames))
    assert len(validation) == n_validation


@QUICK
@given(data=st.data(), n_frames=st.integers(2, 300), seed=SEEDS)
def test_folds(data: st.DataObject, n_frames: int, seed: int) -> None:
    n_folds = data.draw(st.integers(2, min(n_frames, 12)))
    n_calibration = data.draw(st.integers(0, n_frames - n_folds))
    split = split_folds(n_frames, n_folds, n_calibration, seed)
    assert len(split.folds) == n_folds
    (calibration,) = as_sets(split.calibration)
    assert len(calibration) == n_calibration
    rest = set(range(n_frames)) - calibration
    assert len(rest) == n_frames - n_calibration
    validated: list[int] = []
    for fold in split.folds:
        training, validation = as_sets(*fold)
        assert not training & validation
        assert training | validation == rest
        assert validation
        validated += validation
    assert sorted(validated) == sorted(rest), "a frame is validated on by no fold, or by two"
    sizes = [len(fold.validation) for fold in split.folds]
    assert max(sizes) - min(sizes) <= 1


@QUICK
@given(data=st.data(), n_frames=st.integers(6, 300), seed=SEEDS)
def test_frames_for_tests_are_in_no_other_set(data: st.DataObject, n_frames: int, seed: int) -> None:
    n_test = data.draw(st.integers(0, n_frames - 4))
    n_validation = data.draw(st.integers(1, n_frames - n_test - 2))
    n_training = data.draw(st.none() | st.integers(2, n_frames - n_test - n_validation))
    split = split_training(n_frames, n_validation, seed, n_training=n_training, n_test=n_test)
    test, training, validation = as_sets(held_out(n_frames, n_test, seed), *split)
    assert not test & training
    assert not test & validation
    assert not training & validation
    sizes = (n_test, n_training or n_frames - n_test - n_validation, n_validation)
    assert (len(test), len(training), len(validation)) == sizes
    folds = split_folds(n_frames, 2, n_validation, seed, n_training=n_training, n_test=n_test)
    (calibration,) = as_sets(folds.calibration)
    folded = set(folds.folds[0].validation) | set(folds.folds[1].validation)
    assert not test & (calibration | folded)
    assert (len(calibration), len(folded)) == (n_validation, sizes[1])


def test_frames_for_tests_are_drawn_from_all() -> None:
    counts = np.zeros(20)
    for seed in range(2000):
        counts[held_out(20, 5, seed)] += 1
    # Binomial, 2000 draws of probability 1/4: a standard deviation of 19.
    assert np.abs(counts - 500).max() < 5 * 19.4


@pytest.mark.parametrize(("n_training", "n_test"), [(9, 0), (5, 4), (None, 9), (None, 8)])
def test_more_frames_than_there_are(n_training: int | None, n_test: int) -> None:
    with pytest.raises(DataError, match="validation = 2 of 10 frames.*; expected"):
        split_training(10, 2, 0, n_training=n_training, n_test=n_test)


@pytest.mark.parametrize(("n_training", "n_test"), [(9, 0), (5, 4), (1, 0), (None, 8)])
def test_folds_of_more_frames_than_there_are(n_training: int | None, n_test: int) -> None:
    with pytest.raises(DataError, match="10 frames"):
        split_folds(10, 2, 2, 0, n_training=n_training, n_test=n_test)


@pytest.mark.parametrize("n_test", [-1, 10])
def test_nothing_left_but_tests(n_test: int) -> None:
    with pytest.raises(DataError, match=f"test = {n_test} of 10 frames"):
        held_out(10, n_test, 0)


@QUICK
@given(seed=SEEDS)
def test_repeatable(seed: int) -> None:
    for a, b in zip(split_training(50, 7, seed), split_training(50, 7, seed), strict=True):
        np.testing.assert_array_equal(a, b)
    one, two = split_folds(50, 5, 8, seed), split_folds(50, 5, 8, seed)
    np.testing.assert_array_equal(one.calibration, two.calibration)
    for fold_a, fold_b in zip(one.folds, two.folds, strict=True):
        np.testing.assert_array_equal(fold_a.training, fold_b.training)
        np.testing.assert_array_equal(fold_a.validation, fold_b.validation)


def test_does_not_depend_on_or_change_numpys_global_state() -> None:
    np.random.seed(0)  # noqa: NPY002 - the global state is what is tested
    first = split_training(50, 7, 1)
    after = np.random.random()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    assert np.random.random() == after  # noqa: NPY002
    np.testing.assert_array_equal(first.validation, split_training(50, 7, 1).validation)


def test_seeds_differ() -> None:
    assert len({tuple(split_training(50, 7, seed).validation) for seed in range(20)}) == 20
    assert len({tuple(split_folds(50, 5, 8, seed).calibration) for seed in range(20)}) == 20


def test_drawn_from_the_whole_file() -> None:
    # Frames of a trajectory are alike when near: a block of them would validate nothing.
    counts = np.zeros(20)
    for seed in range(2000):
        counts[split_training(20, 5, seed).validation] += 1
    # Binomial(2000, 1/4): mean 500, standard deviation 19.4. Five of them.
    assert abs(counts - 500).max() < 97
    counts[:] = 0
    for seed in range(2000):
        counts[split_folds(20, 3, 5, seed).calibration] += 1
    assert abs(counts - 500).max() < 97


def test_indices_are_sorted_integers() -> None:
    split = split_folds(30, 4, 6, 0)
    arrays = [*split_training(30, 6, 0), split.calibration, *(a for fold in split.folds for a in fold)]
    for indices in arrays:
        assert indices.dtype == np.int64
        assert (np.diff(indices) > 0).all()


def test_without_calibration() -> None:
    split = split_folds(10, 5, 0, 0)
    assert len(split.calibration) == 0
    assert split.calibration.dtype.kind == "i"
    assert [len(fold.validation) for fold in split.folds] == [2] * 5


def test_as_many_folds_as_frames() -> None:
    split = split_folds(7, 5, 2, 0)
    assert [len(fold.validation) for fold in split.folds] == [1] * 5


@pytest.mark.parametrize(("n_frames", "n_validation"), [(10, 0), (10, -1), (10, 10), (10, 11), (1, 1), (0, 0)])
def test_training_split_that_leaves_nothing(n_frames: int, n_validation: int) -> None:
    with pytest.raises(DataError, match=f"{n_validation} of {n_frames} frames") as caught:
        split_training(n_frames, n_validation, 0)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("n_folds", [1, 0, -1])
def test_too_few_folds(n_folds: int) -> None:
    with pytest.raises(DataError, match=f"folds = {n_folds}; expected at least 2"):
        split_folds(10, n_folds, 0, 0)


@pytest.mark.parametrize(
    ("n_frames", "n_folds", "n_calibration"), [(4, 5, 0), (10, 5, 6), (10, 5, 10), (10, 5, 11), (10, 5, -1), (0, 2, 0)]
)
def test_too_few_frames(n_frames: int, n_folds: int, n_calibration: int) -> None:
    with pytest.raises(DataError) as caught:
        split_folds(n_frames, n_folds, n_calibration, 0)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert all(str(number) in message for number in (n_frames, n_folds, n_calibration))
