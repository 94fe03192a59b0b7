r"""Filters for training as sums of Chebyshev polynomials: a network for some sixty distances instead of every pair.

A filter is a smooth function of one number, the distance r, however many pairs a batch has. In the coordinate x(r) in
which the radial functions are Gaussians of one width, its Chebyshev series of K terms,

.. math:: W(r) = \sum_{k<K} C_k \cos(k \theta), \qquad \theta = \arccos \frac{x(r) - x_m}{h},

ends in rounding error after some K that follows from that width, and the coefficients C follow from the filters at K
nodes (Trefethen, Approximation Theory and Approximation Practice (2013), chapters 3 and 8). What is trained are the
filter networks, through C: loss and gradient are theirs.
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
"""Of `interpolation_error`; float32 leaves no more of a filter's slopes."""
_ENDS = 1e-10  # of the cutoff, from either end: there an arccos has no slope, and no pair counts
_CHECKED = 400  # distances


class InterpolatedSchNet(nn.Module):
    """A `SchNet` in training: its parameters, and its energies to rounding error, from filters by interpolation.

    Parameters
    ----------
    model
        Has an envelope.
    terms
        K; see `terms_for`.
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
        """Per-atom energies; see `SchNet.forward`."""
        return self.model.atom_energies(numbers, self.filters(torch.linalg.vector_norm(vectors, dim=-1)), pairs)

    def filters(self, distances: Tensor) -> list[Tensor]:
        """See `SchNet.filters`."""
        model, cutoff = self.model, self.model.config.cutoff
        assert model.envelope is not None
        # What is beyond the cutoff, the envelope takes. In float64, but for the cosine: high polynomials change fast.
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
    """Terms that a model's filters need, K; None where that would save nothing, or where pairs may be at any distance.

    A Gaussian of width w, in half ranges, has coefficients that fall as exp(-(k w)² / 2); what the activation and the
    last layer make of Gaussians needs some more. See `interpolation_error` for what comes of it.
    """
    if model.envelope is None:
        return None
    low, high = _range(model)
    terms = 24 + math.ceil(6.0 * 0.5 * (high - low) / model.basis.width)
    # A pair costs K times F products in place of (n_rbf + F) times F, and a function of an arccos K times.
    return terms if 4 * terms <= 3 * (model.config.n_rbf + model.config.n_features) else None


def interpolation_error(model: SchNet, terms: int) -> float:
    """Largest difference between interpolated filters and the model's own, or of slopes, relative to the largest."""
    exact = copy.deepcopy(model).cpu().double().requires_grad_(False)
    r = torch.linspace(0.0, model.config.cutoff, _CHECKED, dtype=torch.float64)
    values = [torch.cat(filters(r), dim=1) for filters in (InterpolatedSchNet(exact, terms).filters, exact.filters)]
    slopes = [torch.diff(v, dim=0) for v in values]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in (values, slopes))


def _range(model: SchNet) -> tuple[float, float]:
    """Smallest and largest coordinate of distances up to the cutoff."""
    low, high = sorted(model.basis.coordinate(torch.tensor([0.0, model.config.cutoff], dtype=torch.float64)).tolist())
    return low, high
