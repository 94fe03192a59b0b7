r"""Tabulate filters: each interaction's filter network and envelope as a piecewise polynomial of the distance.

A SchNet filter is a function of one number. On intervals of width h it is replaced by the quintic that has the
network's value, slope and curvature at both ends (Hermite interpolation). The table is thus twice continuously
differentiable, and the slope used for forces is the derivative of the value used for the energy: energy is conserved
whatever the table's error. The error of the value falls as h⁶, that of the slope as h⁵.

The network is evaluated on a grid four times finer. Its differences give slopes and curvatures to the eighth order, and
its points between the knots serve to check the table.

DeePMD-kit's compressed models tabulate their embedding nets likewise (Lu et al., J. Chem. Theory Comput. 18, 5559
(2022)).
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from schnet_ase.geometry.arrays import Floats
from schnet_ase.networks import SchNet

TOLERANCES = {"float32": 5e-7, "float64": 1e-10}
"""Error of values and slopes, relative to the largest of each. In float32, a table as exact as its numbers would have
nearly twice as many rows, more than the fast caches hold, and rounding errors of the forces would be the same."""
_FINE = 4
_STENCIL = 9
_MOST_INTERVALS = 1 << 16
_AT_ONCE = 512
"""Number of points at which a network is evaluated at once, so that its features stay in the processor's caches."""
_MOST_KEPT = 64 << 20
"""Bytes of tables that are kept for further calculators of the same weights."""
_kept: dict[bytes, FilterTable] = {}


class TableError(ValueError):
    """The filters of a model cannot be tabulated accurately enough."""


class FilterTable(NamedTuple):
    """Tabulated filters of all interactions of a model."""

    coefficients: Floats
    r"""(n_interactions, K + 1, 6, F): :math:`W(r) = \sum_c a_{kc} u^c` with :math:`k + u = r / h`, :math:`0 \le u < 1`.

    The last row applies beyond the table: zero at the cutoff, or a constant without an envelope.
    """
    width: float
    """h, Å."""
    error: float
    """Largest error of a value or a slope between the knots, relative to the largest of the interaction."""


def tabulate(model: SchNet, tolerance: float, at_least: int = 1) -> FilterTable:
    """Tabulate the filters of `model`, with intervals narrowed until values and slopes meet `tolerance`.

    A model gets the table of an earlier model with the same weights in its interactions, if that table is still kept.

    Parameters
    ----------
    model
        The table is made in float64 whatever the dtype of its weights.
    tolerance
        Bound on the error between the knots, relative to the largest value and the largest slope.
    at_least
        Number of intervals to begin with.

    Returns
    -------
    FilterTable
        The table, read-only.

    Raises
    ------
    TableError
        The bound cannot be met.
    """
    double = copy.deepcopy(model).cpu().double()
    key = _key(double, tolerance, at_least)
    table = _kept.get(key)
    if table is None:
        table = _narrowed(double, tolerance, at_least)
        table.coefficients.flags.writeable = False
        _keep(key, table)
    return table


def equal_tables(models: Sequence[SchNet], tolerance: float) -> list[FilterTable]:
    """Tables of one size, that of the finest that one of the models needs; see `tabulate`."""
    tables: list[FilterTable] = []
    intervals = 1
    for model in models:  # each begins with what the finest so far needed, which often serves it too
        tables.append(tabulate(model, tolerance, at_least=intervals))
        intervals = tables[-1].coefficients.shape[1] - 1
    return [
        table if table.coefficients.shape[1] == intervals + 1 else tabulate(model, tolerance, at_least=intervals)
        for model, table in zip(models, tables, strict=True)
    ]


def _key(model: SchNet, tolerance: float, at_least: int) -> bytes:
    """Return a key of everything that a table depends on, by value, because weights may change in place."""
    digest = hashlib.sha256(repr((model.config, tolerance, at_least, _MOST_INTERVALS)).encode())
    for tensor in (*model.basis.buffers(), *model.interactions.parameters()):
        digest.update(tensor.detach().numpy().tobytes())
    return digest.digest()


def _keep(key: bytes, table: FilterTable) -> None:
    """Keep a table, and discard the oldest ones if there is no room."""
    _kept[key] = table
    for oldest in list(_kept):
        if sum(other.coefficients.nbytes for other in list(_kept.values())) <= _MOST_KEPT:
            break
        _kept.pop(oldest, None)


def _narrowed(double: SchNet, tolerance: float, at_least: int) -> FilterTable:
    # Without an envelope the filters end, as constants, where the last radial function does.
    reach = double.config.pair_cutoff or double.basis.reach
    # This width met the bound for filters as wide as the Gaussians; further ones follow by a factor of the fifth root.
    intervals = max(at_least, math.ceil(reach / (3.0 * tolerance**0.2 * double.basis.finest)))
    while intervals <= _MOST_INTERVALS:
        table = _quintics(double, reach, intervals)
        if table.error <= tolerance:
            return table
        intervals = math.ceil(intervals * min(1.05 * (table.error / tolerance) ** 0.2, 4.0))
    raise TableError(f"a table of {_MOST_INTERVALS} knots that would not meet a relative error of {tolerance:g}")


def _quintics(model: SchNet, reach: float, intervals: int) -> FilterTable:
    # From half a stencil below zero, where the filters are still smooth, to the cutoff, where they are not.
    below = _STENCIL // 2
    points = np.arange(-below, _FINE * intervals + 1)
    r = points * (reach / (_FINE * intervals))
    # At the cutoff itself the envelope is zero by definition; the table needs its limit from below.
    r[-1] = np.nextafter(reach, 0.0)
    with torch.no_grad():
        parts = [[f.numpy() for f in model.filters(part)] for part in torch.from_numpy(r).split(_AT_ONCE)]
        beyond = torch.stack(model.filters(torch.tensor([2.0 * reach], dtype=torch.float64))).numpy()
    fits = [_fit(np.concatenate(values), below) for values in zip(*parts, strict=True)]
    last = np.zeros((len(fits), 1, 6, beyond.shape[-1]))
    last[:, 0, 0] = beyond[:, 0]
    rows = np.stack([rows for rows, _ in fits])
    error = float(np.max([error for _, error in fits]))  # NaN if one is
    return FilterTable(np.concatenate([rows, last], axis=1), reach / intervals, error)


def _fit(values: Floats, below: int) -> tuple[Floats, float]:
    """Return quintics (K, 6, F) of one interaction and their error, from the network's values (below + 4 K + 1, F)."""
    fine, first, second = _differences(values, below)
    first, second = _FINE * first, 0.5 * _FINE**2 * second  # per interval
    v0, d0, c0 = (a[:-1:_FINE] for a in (fine, first, second))
    v1, d1, c1 = (a[_FINE::_FINE] for a in (fine, first, second))
    # The quintic with these values, slopes and half curvatures at u = 0 and u = 1.
    v, d, c = v1 - v0 - d0 - c0, d1 - d0 - 2.0 * c0, c1 - c0
    rows = np.stack([v0, d0, c0, 10.0 * v - 4.0 * d + c, -15.0 * v + 7.0 * d - 2.0 * c, 6.0 * v - 3.0 * d + c], axis=1)
    errors = []
    for n in range(1, _FINE):
        powers = (n / _FINE) ** np.arange(6)
        value = np.einsum("c,kcf->kf", powers, rows)
        slope = np.einsum("c,kcf->kf", powers[:5] * np.arange(1, 6), rows[:, 1:])
        errors += [_relative(value, fine[n::_FINE]), _relative(slope, first[n::_FINE])]
    return rows, float(np.max(errors))


def _differences(values: Floats, below: int) -> tuple[Floats, Floats, Floats]:
    """Return values and first and second derivatives per point, from `below` on: (R, F) to (R - below, F) each."""
    n = len(values)
    first, second = (np.zeros_like(values[below:]) for _ in range(2))
    for shift in range(below + 1):  # 0 except for the last points, whose stencils lean inwards
        weights = _stencil(np.arange(_STENCIL) - below - shift)
        points = slice(below, n - below) if shift == 0 else slice(n - 1 - below + shift, n - below + shift)
        for offset, (w1, w2) in zip(range(-below - shift, below + 1 - shift), weights, strict=True):
            moved = values[points.start + offset : points.stop + offset]
            first[points.start - below : points.stop - below] += w1 * moved
            second[points.start - below : points.stop - below] += w2 * moved
    return values[below:], first, second


def _stencil(offsets: NDArray[np.int64]) -> Floats:
    """Return weights (n, 2) of values at `offsets` for both derivatives at 0, exact for degree n - 1."""
    powers = np.vander(offsets.astype(float), increasing=True).T
    derivatives = np.zeros((len(offsets), 2))
    derivatives[1, 0], derivatives[2, 1] = 1.0, 2.0
    return np.linalg.solve(powers, derivatives).astype(np.float64)


def _relative(table: Floats, network: Floats) -> float:
    """Return the largest difference over the largest value."""
    largest = float(np.abs(network).max())
    return float(np.abs(table - network).max()) / (largest if largest > 0.0 else 1.0)
