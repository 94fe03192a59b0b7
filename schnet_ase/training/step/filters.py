r"""Interpolate filters in training with Chebyshev polynomials: evaluate a network at some sixty distances, not at every
pair.

A filter is a smooth function of one number, the distance r, however many pairs a batch has. In the coordinate x(r) in
which the radial functions are Gaussians of equal width, its Chebyshev series of K terms,

.. math:: W(r) = \sum_{k<K} C_k \cos(k \theta), \qquad \theta = \arccos \frac{x(r) - x_m}{h},

reaches rounding error after a number of terms K that follows from that width, and the coefficients C follow from the
filters at K nodes (Trefethen, Approximation Theory and Approximation Practice (2013), chapters 3 and 8). The filter
networks are trained through C: loss and gradient are theirs.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn

from schnet_ase.geometry.graph import Pairs
from schnet_ase.networks import SchNet

TOLERANCE = 1e-6
"""Bound on `interpolation_error`; the slopes of a filter are not more accurate in float32."""
_ENDS = 1e-10  # relative to the cutoff, at both ends: there an arccos has no slope, and no pair counts
_CHECKED = 400  # number of distances


class InterpolatedSchNet(nn.Module):
    """A `SchNet` in training with interpolated filters: it has the same parameters, and the same energies up to
    rounding.

    Parameters
    ----------
    model
        Model with an envelope.
    terms
        Number of terms K; see `terms_for`.
    """

    member_shape: tuple[int, ...] = ()
    n_networks = 1
    nodes: Tensor
    transform: Tensor
    orders: Tensor

    def __init__(self, model: SchNet, terms: int) -> None:
        super().__init__()
        self.model = model
        low, high = _range(model)
        self.middle = 0.5 * (low + high)
        self.half_range = 0.5 * (high - low)
        angles = (np.arange(terms) + 0.5) * np.pi / terms
        transform = 2.0 / terms * np.cos(np.outer(np.arange(terms), angles))
        transform[0] *= 0.5
        nodes = model.basis.distance(torch.from_numpy(self.middle + self.half_range * np.cos(angles)))
        weight = model.embedding.weight
        self.register_buffer("nodes", nodes.to(weight), persistent=False)
        self.register_buffer("transform", torch.from_numpy(transform).to(weight), persistent=False)
        self.register_buffer("orders", torch.arange(terms, device=weight.device), persistent=False)

    def forward(self, numbers: Tensor, vectors: Tensor, pairs: Pairs) -> Tensor:
        """Compute per-atom energies; see `SchNet.forward`."""
        return self.model.atom_energies(numbers, self.filters(torch.linalg.vector_norm(vectors, dim=-1)), pairs)

    def filters(self, distances: Tensor) -> list[Tensor]:
        """Return the filters of each interaction; see `SchNet.filters`."""
        model, cutoff = self.model, self.model.config.cutoff
        assert model.envelope is not None
        # The envelope is zero beyond the cutoff. All but the cosine is in float64: high polynomials change fast.
        coordinate = model.basis.coordinate(distances.double().clamp(_ENDS * cutoff, (1.0 - _ENDS) * cutoff))
        angles = torch.arccos((coordinate - self.middle) / self.half_range)
        phases = angles[:, None] * self.orders
        phases = phases - math.tau * torch.round(phases.detach() / math.tau)
        envelope = model.envelope(distances, cutoff)[:, None].to(model.dtype)
        polynomials = torch.cos(phases.to(model.dtype)) * envelope
        at_nodes = torch.cat(model.bare_filters(self.nodes), dim=1)
        filters = polynomials @ (self.transform @ at_nodes)
        return list(filters.split(model.config.n_features, dim=1))


def terms_for(model: SchNet) -> int | None:
    """Return the number of terms K for a model's filters; None if it saves nothing, or if pairs may be at any distance.

    The coefficients of a Gaussian of width w, in half ranges, fall as exp(-(k w)² / 2); after the activation and the
    last layer some more terms are needed. `interpolation_error` measures the result.
    """
    if model.envelope is None:
        return None
    low, high = _range(model)
    terms = 24 + math.ceil(6.0 * 0.5 * (high - low) / model.basis.width)
    # A pair costs K times F products instead of (n_rbf + F) times F, and K evaluations of a function of an arccos.
    return terms if 4 * terms <= 3 * (model.config.n_rbf + model.config.n_features) else None


def interpolation_error(model: SchNet, terms: int) -> float:
    """Return the largest error of interpolated filters or of their slopes, relative to the largest of each."""
    exact = copy.deepcopy(model).cpu().double().requires_grad_(False)
    r = torch.linspace(0.0, model.config.cutoff, _CHECKED, dtype=torch.float64)
    values = [torch.cat(filters(r), dim=1) for filters in (InterpolatedSchNet(exact, terms).filters, exact.filters)]
    slopes = [torch.diff(v, dim=0) for v in values]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in (values, slopes))


def _range(model: SchNet) -> tuple[float, float]:
    """Return the smallest and the largest coordinate of distances up to the cutoff."""
    low, high = sorted(model.basis.coordinate(torch.tensor([0.0, model.config.cutoff], dtype=torch.float64)).tolist())
    return low, high
