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
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from schnet_ase.networks import SchNet
from schnet_ase.training.step.convolutions import POINTS, weigh

TOLERANCE = 1e-6
"""Bound on `interpolation_error`; the slopes of a filter are not more accurate in float32."""
PER_WIDTH = 12
"""Steps of the table per standard deviation of the Gaussians."""
MOST = 400
"""Steps of the table beyond which a network for every pair is as fast."""
_ENDS = 1e-10  # relative to the cutoff, at both ends: there a coordinate may have no slope, and no pair counts
_CHECKED = 400  # number of distances


class Places(NamedTuple):
    """Where pairs are in the tables: their first rows (P,), and weights of eight rows for the filter and for its slope,
    each flat (8 P,)."""

    start: Any
    weights: Any
    slopes: Any


class TabulatedFilters:
    """The filters of a network in training, as tables at equal steps of the coordinate of its radial functions.

    Parameters
    ----------
    model
        Model with an envelope.
    steps
        Number of steps of the table; see `steps_for`.
    """

    def __init__(self, model: SchNet, steps: int) -> None:
        self.model = model
        # From the cutoff, where the envelope makes errors small, to some points beyond r = 0, where nothing does.
        at_cutoff, at_zero = _ends(model)
        self.begin, self.step = at_cutoff, (at_zero - at_cutoff) / steps
        self.last = steps + POINTS // 2 - POINTS
        coordinates = at_cutoff + self.step * np.arange(self.last + POINTS)
        self.nodes = model.basis.distance(torch.from_numpy(coordinates)).to(model.embedding.weight)
        self.polynomials = _lagrange()

    def tables(self) -> list[Tensor]:
        """Return the filters of each interaction without the envelope at the steps, (K, F)."""
        return self.model.bare_filters(self.nodes)

    def places(self, distances: Tensor) -> Places:
        """Find the places of distances (P,), float64 and in Å, with the envelope in the weights."""
        model, cutoff = self.model, self.model.config.cutoff
        assert model.envelope is not None
        with torch.enable_grad():
            r = distances.detach().requires_grad_()
            # The envelope is zero beyond the cutoff.
            coordinate = model.basis.coordinate(r.clamp(_ENDS * cutoff, (1.0 - _ENDS) * cutoff))
            envelope = model.envelope(r, cutoff)
            (dx,) = torch.autograd.grad(coordinate.sum(), r)
            (df,) = torch.autograd.grad(envelope.sum(), r)
        place = (coordinate.detach() - self.begin) / self.step
        start = (torch.floor(place) - (POINTS // 2 - 1)).clamp(0, self.last)
        s = place - start - 0.5 * (POINTS - 1)
        weights, slopes = (np.empty(len(s) * POINTS, self.nodes.numpy().dtype) for _ in range(2))
        coordinates = (part.numpy() for part in (s, dx / self.step, envelope.detach(), df))
        weigh(self.polynomials, *coordinates, weights, slopes)
        return Places(start.long().numpy(), weights, slopes)

    def filters(self, distances: Tensor) -> list[Tensor]:
        """Return the filters of each interaction at distances, to compare them with `SchNet.filters`."""
        places = self.places(distances)
        rows = torch.from_numpy(places.start)[:, None] + torch.arange(POINTS)
        weights = torch.from_numpy(places.weights).view(-1, POINTS)
        return [torch.einsum("pj,pjf->pf", weights, table[rows]) for table in self.tables()]


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
    values = [torch.cat(filters(r), dim=1) for filters in (TabulatedFilters(exact, steps).filters, exact.filters)]
    slopes = [torch.diff(v, dim=0) for v in values]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in (values, slopes))


def _ends(model: SchNet) -> tuple[float, float]:
    """Return the coordinates of the cutoff and of the distance zero."""
    at_cutoff, at_zero = model.basis.coordinate(torch.tensor([model.config.cutoff, 0.0], dtype=torch.float64)).tolist()
    return at_cutoff, at_zero
