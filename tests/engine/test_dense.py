"""Activations and dense layers of the kernel against NumPy."""

import numba
import numpy as np
import pytest
from scipy.special import expit

from schnet_ase.engine import dense as layers
from schnet_ase.engine.ahead import Ahead
from schnet_ase.engine.simd import VECTOR_BYTES

NOTHING = Ahead(np.zeros(0), np.zeros(0, np.int64), np.zeros(6, np.int64))
activate, dense = (numba.njit(function.py_func) for function in (layers.activate, layers.dense))  # for Python to call


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activation_is_the_shifted_softplus(dtype):
    special = [0.0, -0.0, 1e-30, -1e-30, 88.7, -88.7, 300.0, -300.0, 1e30, -1e30, 709.0, -745.0]
    x = np.concatenate([special, np.linspace(-60.0, 60.0, 4084)]).astype(dtype)
    value, slope = x.copy(), np.zeros_like(x)
    activate(value, slope, 0, 0, len(x), False)
    wide = x.astype(np.longdouble)
    expected = np.logaddexp(np.longdouble(0.0), wide) - np.log(np.longdouble(2.0))
    tolerance = 4.0 * np.finfo(dtype).eps
    np.testing.assert_allclose(value, expected.astype(dtype), rtol=tolerance, atol=tolerance)
    logistic = expit(x.astype(np.float64)).astype(dtype)
    np.testing.assert_allclose(slope, logistic, rtol=8 * tolerance, atol=1e-37)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activation_is_silu(dtype):
    x = np.concatenate([[0.0, 300.0, -300.0, 1e30, -1e30], np.linspace(-60.0, 60.0, 4091)]).astype(dtype)
    value, slope = x.copy(), np.zeros_like(x)
    activate(value, slope, 0, 0, len(x), True)
    wide = x.astype(np.float64)
    sigma = expit(wide)
    tolerance = 512.0 * np.finfo(dtype).eps  # exp(-300) is known no better than 300 is
    np.testing.assert_allclose(value, wide * sigma, rtol=tolerance, atol=1e-7 if dtype is np.float32 else 1e-200)
    np.testing.assert_allclose(slope, sigma + wide * sigma * (1.0 - sigma), rtol=tolerance, atol=tolerance)


def test_activation_of_no_number_is_no_number():
    value, slope = np.full(8, np.nan, np.float32), np.zeros(8, np.float32)
    activate(value, slope, 0, 0, 8, False)
    assert np.isnan(value).all()


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("add", [False, True])
def test_dense_layer(rows, add):
    V = VECTOR_BYTES // 8
    n_in, n_out, capacity = 4 * V, 8 * V, 7
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(capacity, n_in)), rng.normal(size=(capacity, n_out))
    weights, bias = rng.normal(size=(n_in, n_out)), rng.normal(size=n_out)
    blocks = [np.ascontiguousarray(a.reshape(capacity, -1, V).swapaxes(0, 1)).ravel() for a in (x, y)]
    columns = np.ascontiguousarray(weights.reshape(n_in, -1, 4 * V).swapaxes(0, 1)).ravel()
    dense(blocks[0], 0, capacity, columns, 0, bias, 0, blocks[1], 0, capacity, rows, n_in, n_out, add, NOTHING)
    result = blocks[1].reshape(-1, capacity, V).swapaxes(0, 1).reshape(capacity, n_out)
    np.testing.assert_allclose(result[:rows], x[:rows] @ weights + bias + (y[:rows] if add else 0.0), rtol=1e-12)
    np.testing.assert_array_equal(result[rows:], y[rows:])
