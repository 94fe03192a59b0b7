"""Envelopes and radial functions: their values, their slopes, and that none is subnormal."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from schnet_ase import SchNet, SchNetConfig
from schnet_ase.networks.radial import ENVELOPES


def envelope_derivatives(name: str, r: torch.Tensor, cutoff: float) -> list[torch.Tensor]:
    r = r.clone().requires_grad_()
    f = ENVELOPES[name](r, cutoff)
    (first,) = torch.autograd.grad(f.sum(), r, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), r)
    return [f.detach(), first.detach(), second]


@pytest.mark.parametrize("name", ENVELOPES)
def test_envelope_falls_from_one_to_zero(name: str) -> None:
    r = torch.linspace(0.0, 4.0, 201, dtype=torch.float64)
    f = ENVELOPES[name](r, 4.0)
    assert f[0] == 1.0
    assert f[-1] == 0.0
    assert (f.diff() <= 1e-15).all()


@pytest.mark.parametrize("name", ENVELOPES)
def test_envelope_and_derivatives_are_zero_at_the_cutoff_and_beyond(name: str) -> None:
    r = torch.tensor([4.0, 4.0 + 1e-9, 4.1, 40.0], dtype=torch.float64)
    for derivative in envelope_derivatives(name, r, 4.0):
        assert (derivative == 0.0).all()


@pytest.mark.parametrize(("name", "order"), [("cosine", 2), ("polynomial", 3)])
def test_envelope_goes_to_zero_with_its_derivatives(name: str, order: int) -> None:
    # Just below the cutoff by h, the k-th derivative is of order h^(order - k); the constants are of order one.
    h = 1e-4
    below = envelope_derivatives(name, torch.tensor([4.0 - h], dtype=torch.float64), 4.0)
    for k in range(order):
        assert abs(below[k].item()) < 10.0 * h ** (order - k)


def test_second_derivative_of_the_cosine_jumps() -> None:
    # Why "polynomial" exists: the docstring's pi^2 / 2 r_c^2.
    below = envelope_derivatives("cosine", torch.tensor([4.0 - 1e-6], dtype=torch.float64), 4.0)
    assert below[2].item() == pytest.approx(np.pi**2 / (2 * 4.0**2), rel=1e-6)


def test_gamma_is_taken_from_the_spacing_where_none_is_given() -> None:
    # Neighbouring functions then cross at one standard deviation's distance: exp(-1/2) at the next centre.
    basis = SchNet(SchNetConfig(n_rbf=11, cutoff=5.0, gamma=None)).double().basis
    values = basis(torch.tensor([0.5], dtype=torch.float64))
    assert values[0, 1].item() == 1.0
    assert values[0, 0].item() == pytest.approx(np.exp(-0.5), abs=1e-14)


@pytest.mark.parametrize(
    "config",
    [SchNetConfig.default(), SchNetConfig(cutoff=5.0, n_rbf=32, gamma=None), replace(SchNetConfig.md(), n_rbf=32)],
    ids=["report", "Gaussians", "exponential"],
)
def test_radial_functions_are_never_subnormal(config: SchNetConfig) -> None:
    """Nor what training makes of them: a processor computes with such numbers ten times as long."""
    basis = SchNet(config).basis
    r = torch.linspace(0.0, config.cutoff, 2001, requires_grad=True)
    values = basis(r)
    (slopes,) = torch.autograd.grad(values.sum(), r, create_graph=True)
    (curvatures,) = torch.autograd.grad(slopes.sum(), r)
    tiny = torch.finfo(torch.float32).tiny
    with torch.no_grad():
        for numbers in (values, slopes, curvatures):
            assert not ((numbers != 0.0) & (numbers.abs() < tiny)).any()
    exact = copy.deepcopy(basis).double()(r.detach().double())
    assert (values - exact).abs().max() < 1e-5
