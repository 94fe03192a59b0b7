"""One look at the deviations."""

import numpy as np
import pytest

from schnet_ase.monitor.statistics import look


@pytest.mark.parametrize("lost", [None, 0, 3, 5])
def test_a_look_is_what_numpy_says(lost):
    """The first of the watched atoms without a number counts as the largest, as NumPy has it."""
    rng = np.random.default_rng(0)
    deviation, momenta, inverse_masses = rng.uniform(size=6), rng.normal(size=(6, 3)), rng.uniform(0.1, 1.0, 6)
    if lost is not None:
        deviation[lost:] = np.nan
    for watched in (np.arange(6), np.array([1, 4]), np.array([5])):
        kinetic, atom, largest, smallest = look(deviation, watched, momenta, inverse_masses)
        assert kinetic == pytest.approx(np.sum(momenta**2 * inverse_masses[:, None]), rel=1e-14)
        assert atom == watched[deviation[watched].argmax()]
        np.testing.assert_equal((largest, smallest), (deviation[watched].max(), deviation[watched].min()))
