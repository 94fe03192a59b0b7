"""Which warnings fail a test: those that our own code causes, on any Python and with any versions of other packages."""

import warnings

import pytest

CODE = """
import warnings
import numpy as np

def warn(stacklevel=1, category=DeprecationWarning):
    warnings.warn("away soon", category, stacklevel=stacklevel)

def divide():
    return np.ones(1) / np.zeros(1)
"""
OURS = ["schnet_ase", "schnet_ase.engine.made_up", "tests.test_made_up", "md_speed", "report.made_up", "__main__"]
FOREIGN = ["ase.atoms", "numpy", "schnet_asefoo", "other.schnet_ase", "testsuite"]


def functions(module: str):
    """Those of `CODE`, as if a module of this name had them."""
    names = {"__name__": module}
    exec(CODE, names)
    return names["warn"], names["divide"]


@pytest.mark.parametrize("module", OURS)
def test_a_warning_raised_in_our_code_is_an_error(module):
    warn, divide = functions(module)
    with pytest.raises(DeprecationWarning):
        warn()
    with pytest.raises(RuntimeWarning):  # NumPy's compiled code ascribes it to its caller
        divide()


@pytest.mark.parametrize("module", FOREIGN)
def test_a_warning_raised_in_another_package_is_none(module):
    warn, divide = functions(module)
    with warnings.catch_warnings(record=True) as seen:  # which leaves the filters as they are
        warn()
        divide()
    assert [found.category for found in seen] == [DeprecationWarning, RuntimeWarning]


@pytest.mark.parametrize("module", FOREIGN)
def test_a_warning_for_the_caller_is_an_error_where_that_is_our_code(module):
    warn, _ = functions(module)
    with pytest.raises(DeprecationWarning):  # this test calls
        warn(stacklevel=2)


def test_an_exception_that_nobody_catches_is_an_error():
    """Such as a file of ours left open, found when memory is freed: pytest makes a warning of it."""
    warn, _ = functions("_pytest.unraisableexception")
    for category in (pytest.PytestUnraisableExceptionWarning, pytest.PytestUnhandledThreadExceptionWarning):
        with pytest.raises(category):
            warn(category=category)
