r"""Interpolate filters in training from a table: evaluate a network at some hundred distances, not at every pair.

A filter is a smooth function of one number, the distance r, however many pairs a batch has. In the coordinate x(r) in
which the radial functions are Gaussians of equal width, it is tabulated at equal steps h, and a pair takes it from the
eight nearest points by Lagrange's polynomial of degree seven,

.. math:: W(r) = \sum_{j=0}^{7} \ell_j(s) \, W(x_{k+j}), \qquad
          \ell_j(s) = \prod_{i \ne j} \frac{s + 7/2 - i}{j - i}, \qquad s = (x(r) - x_k) / h - 7/2,

whose error falls as :math:`h^8` (Hamming, Numerical Methods for Scientists and Engineers (1973), chapter 14). The
filter networks are trained through the table: loss and gradient are theirs.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn

from schnet_ase.geometry.graph import Pairs
from schnet_ase.networks import SchNet
from schnet_ase.training.step.interpolation import POINTS, interpolate

TOLERANCE = 1e-6
"""Bound on `interpolation_error`; the slopes of a filter are not more accurate in float32."""
PER_WIDTH = 12
"""Steps of the table per standard deviation of the Gaussians."""
MOST = 400
"""Steps of the table beyond which a network for every pair is as fast."""
_ENDS = 1e-10  # relative to the cutoff, at both ends: there a coordinate may have no slope, and no pair counts
_CHECKED = 400  # number of distances


class InterpolatedSchNet(nn.Module):
    """A `SchNet` in training with interpolated filters: it has the same parameters, and the same energies up to
    rounding.

    Parameters
    ----------
    model
        Model with an envelope.
    steps
        Number of steps of the table; see `steps_for`.
    """

    member_shape: tuple[int, ...] = ()
    n_networks = 1
    nodes: Tensor
    polynomials: Tensor

    def __init__(self, model: SchNet, steps: int) -> None:
        super().__init__()
        self.model = model
        # From the cutoff, where the envelope makes errors small, to some points beyond r = 0, where nothing does.
        at_cutoff, at_zero = _ends(model)
        self.begin, self.step = at_cutoff, (at_zero - at_cutoff) / steps
        self.last = steps + POINTS // 2 - POINTS
        coordinates = at_cutoff + self.step * np.arange(self.last + POINTS)
        nodes = model.basis.distance(torch.from_numpy(coordinates))
        weight = model.embedding.weight
        self.register_buffer("nodes", nodes.to(weight), persistent=False)
        self.register_buffer("polynomials", torch.from_numpy(_lagrange()).to(weight.device), persistent=False)

    def forward(self, numbers: Tensor, vectors: Tensor, pairs: Pairs) -> Tensor:
        """Compute per-atom energies; see `SchNet.forward`."""
        return self.model.atom_energies(numbers, self.filters(torch.linalg.vector_norm(vectors, dim=-1)), pairs)

    def filters(self, distances: Tensor) -> list[Tensor]:
        """Return the filters of each interaction; see `SchNet.filters`."""
        model, cutoff = self.model, self.model.config.cutoff
        assert model.envelope is not None
        # The envelope is zero beyond the cutoff.
        coordinate = model.basis.coordinate(distances.double().clamp(_ENDS * cutoff, (1.0 - _ENDS) * cutoff))
        place = (coordinate - self.begin) / self.step
        start = (torch.floor(place.detach()) - (POINTS // 2 - 1)).clamp(0, self.last)
        s = (place - start - 0.5 * (POINTS - 1))[:, None]
        weights = self.polynomials[-1]
        for coefficients in reversed(self.polynomials[:-1].unbind()):
            weights = weights * s + coefficients
        weights = (weights * model.envelope(distances, cutoff)[:, None]).to(model.dtype)
        table = torch.cat(model.bare_filters(self.nodes), dim=1)
        filters: Tensor = interpolate(table, weights, start.long())
        return list(filters.split(model.config.n_features, dim=1))


def _lagrange() -> np.ndarray:
    """Return the coefficients (degree, POINTS) of Lagrange's polynomials of points at -7/2, -5/2, ..., 7/2."""
    points = np.arange(POINTS) - 0.5 * (POINTS - 1)
    return np.linalg.inv(np.vander(points, increasing=True))


def steps_for(model: SchNet) -> int | None:
    """Return the number of steps of the table for a model's filters; None if it saves nothing, if pairs may be at any
    distance, or on a GPU, where products of matrices cost little."""
    if model.envelope is None or model.embedding.weight.device.type != "cpu":
        return None
    at_cutoff, at_zero = _ends(model)
    steps = max(2 * POINTS, math.ceil(PER_WIDTH * abs(at_zero - at_cutoff) / model.basis.width))
    return steps if steps <= MOST else None


def interpolation_error(model: SchNet, steps: int) -> float:
    """Return the largest error of interpolated filters or of their slopes, relative to the largest of each."""
    exact = copy.deepcopy(model).cpu().double().requires_grad_(False)
    r = torch.linspace(0.0, model.config.cutoff, _CHECKED, dtype=torch.float64)
    values = [torch.cat(filters(r), dim=1) for filters in (InterpolatedSchNet(exact, steps).filters, exact.filters)]
    slopes = [torch.diff(v, dim=0) for v in values]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in (values, slopes))


def _ends(model: SchNet) -> tuple[float, float]:
    """Return the coordinates of the cutoff and of the distance zero."""
    at_cutoff, at_zero = model.basis.coordinate(torch.tensor([model.config.cutoff, 0.0], dtype=torch.float64)).tolist()
    return at_cutoff, at_zero
