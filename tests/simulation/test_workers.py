"""Work in several processes, of which one dies."""

import os
import signal

from schnet_ase.simulation.workers import Failed, work


def squarer(settings):
    def square(x):
        if x == settings:
            os.kill(os.getpid(), signal.SIGKILL)
        return x * x

    return square


def test_a_process_that_dies_takes_only_its_own_thing_with_it():
    results = dict(work(squarer, 3, [1, 2, 3, 4, 5], workers=2))
    died = results.pop(2)
    assert isinstance(died, Failed)
    assert "-9" in died.reason
    assert results == {0: 1, 1: 4, 3: 16, 4: 25}
