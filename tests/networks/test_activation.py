"""The shifted softplus against its formula in float64."""

import numpy as np
import pytest
import torch

from schnet_ase.networks.activation import ACTIVATIONS, ssp

# 88.7 is where exp overflows float32; trained networks were seen to reach 300.
INPUTS = [0.0, 1e-30, 1e-6, 1e-3, 0.1, 1.0, 5.0, 15.0, 19.9, 20.1, 50.0, 88.7, 88.8, 300.0, 1e4, 1e10, 1e30]
BOTH_SIGNS = [sign * x for x in INPUTS for sign in (1.0, -1.0)]


def logistic(x: np.ndarray) -> np.ndarray:
    """The logistic function without overflow, in float64."""
    decay = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, decay) / (1.0 + decay)


def derivatives(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = x.clone().requires_grad_()
    y = ssp(x)
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    return y.detach(), first.detach(), second


def naive(x: torch.Tensor) -> torch.Tensor:
    """The formula as the paper prints it."""
    return torch.log(0.5 * torch.exp(x) + 0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_derivatives_are_those_of_the_formula(dtype: torch.dtype) -> None:
    x = torch.tensor(BOTH_SIGNS, dtype=dtype)
    exact = x.double().numpy()
    y, first, second = derivatives(x)
    eps = torch.finfo(dtype).eps
    # Errors of a few units in the last place: of the value, and of one for derivatives, which lie between 0 and 1.
    np.testing.assert_allclose(y.double(), np.logaddexp(exact, 0.0) - np.log(2.0), rtol=2 * eps, atol=2 * eps)
    np.testing.assert_allclose(first.double(), logistic(exact), rtol=0.0, atol=2 * eps)
    np.testing.assert_allclose(second.double(), logistic(exact) * logistic(-exact), rtol=0.0, atol=2 * eps)


def test_everything_is_finite_where_the_naive_formula_overflows() -> None:
    x = torch.tensor([88.8, 300.0, 1e30])
    for result in derivatives(x):
        assert torch.isfinite(result).all()
    assert not torch.isfinite(naive(x)).any()


def test_agrees_with_the_naive_formula_where_that_holds() -> None:
    x = torch.linspace(-30.0, 30.0, 301, dtype=torch.float64)
    torch.testing.assert_close(ssp(x), naive(x), rtol=0.0, atol=1e-14)


def test_second_derivative_has_no_jump_at_the_threshold_of_softplus() -> None:
    # torch's softplus is linear beyond 20: its second derivative drops from 2e-9 to exactly zero there.
    x = torch.tensor([20.5], dtype=torch.float64)
    _, _, second = derivatives(x)
    torch.testing.assert_close(second, torch.exp(-x), rtol=1e-6, atol=0.0)


def test_is_zero_at_zero() -> None:
    assert abs(ssp(torch.zeros((), dtype=torch.float64)).item()) < 1e-16


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradcheck_and_gradgradcheck(name: str) -> None:
    x = torch.tensor([-30.0, -3.0, -0.5, 0.1, 2.0, 25.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ACTIVATIONS[name], x)
    assert torch.autograd.gradgradcheck(ACTIVATIONS[name], x)
