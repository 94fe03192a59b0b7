"""Dense layers fetch the lines of the next filter tables: all of them, each once, and only where it pays."""

import numpy as np
import pytest
from ase.build import molecule

from schnet_ase import SchNetEnsembleCalculator
from schnet_ase.engine.ahead import BLOCK, LINES, SHARE


def work_of(calculator):
    atoms = molecule("CH3CH2OH")
    atoms.calc = calculator
    atoms.get_forces()
    return calculator._evaluator.backend._work


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lines_of_needed_rows_are_listed_once(make_model, dtype):
    calculator = SchNetEnsembleCalculator([make_model(n) for n in range(3)], engine="compiled", threads=1, dtype=dtype)
    work, shape = work_of(calculator), calculator._evaluator.backend._shape
    start = calculator._evaluator.backend._system.start
    rows = np.unique(np.concatenate([work.row[a:b] for a, b in zip(start, work.end, strict=False)]))
    line = 64 // work.h.itemsize
    expected = (rows[:, None] + line * np.arange(3)).ravel()
    np.testing.assert_array_equal(np.sort(work.lines[: work.ahead[LINES]]), expected)
    lanes = 32 // work.h.itemsize
    blocks, turns = shape.features // lanes, 5  # two of nine atoms in a turn
    assert work.ahead[BLOCK] == shape.rows * 6 * lanes
    # Three layers, four blocks of outputs at a time, each with a share for every block of inputs.
    assert work.ahead[SHARE] * 3 * turns * blocks // 4 * blocks >= len(expected) * blocks


def test_threads_that_share_a_call_fetch_nothing(make_model):
    models = [make_model(n) for n in range(2)]
    work = work_of(SchNetEnsembleCalculator(models, engine="compiled", threads=2))
    assert not work.ahead.any()
