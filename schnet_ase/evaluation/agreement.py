"""Measures of whether errors are as large as the spread predicts: coverage, calibration, sharpness."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
from scipy.special import chdtri

from schnet_ase.geometry.arrays import Floats
from schnet_ase.uncertainty.calibration import Intervals

COVERAGES = (0.68, 0.90, 0.95)
BINS = 10
LEVELS = np.linspace(0.0, 1.0, 101)


class Predictor(Protocol):
    """Rule that predicts the size of the error from the spread."""

    def sigma(self, spread: Floats) -> Floats:
        """Return the expected root-mean-square error."""

    def half_width(self, spread: Floats, coverage: float) -> Floats:
        """Return the half-width that contains the error with this coverage; infinite where none can be given."""


class Gaussian(NamedTuple):
    """Rule by which an error has `dim` normal components, each with standard deviation α × spread / √dim."""

    alpha: float
    dim: int

    def sigma(self, spread: Floats) -> Floats:
        return self.alpha * spread

    def half_width(self, spread: Floats, coverage: float) -> Floats:
        chi_square = float(chdtri(self.dim, 1.0 - coverage))
        return self.alpha * spread * math.sqrt(chi_square / self.dim)


class Conformal(NamedTuple):
    """Rule that takes the half-widths of a calibration."""

    intervals: Intervals

    def sigma(self, spread: Floats) -> Floats:
        return self.intervals.scale(spread) * _rms(np.array(self.intervals.scores))

    def half_width(self, spread: Floats, coverage: float) -> Floats:
        return self.intervals.scale(spread) * self.intervals.quantile(coverage)


class Agreement(NamedTuple):
    """Whether errors are as large as predicted."""

    coverage: tuple[float, ...]
    """Share of errors within the half-widths, for each of `COVERAGES`."""
    miscalibration_area: float
    """Area between the curve of observed against expected coverage and the diagonal, from 0 to 0.5."""
    ence: float
    """Expected normalized calibration error."""
    sharpness: float
    """Root mean square of σ, in the unit of the spread."""
    half_width: float
    """Mean half-width at 90 % coverage, in the unit of the spread."""
    curve: Floats
    """(101,) observed coverage at the expected coverages 0, 0.01, ..., 1."""


def agreement(predictor: Predictor, spread: Floats, error: Floats) -> Agreement:
    r"""Compute coverage, miscalibration area, ENCE and sharpness.

    Parameters
    ----------
    predictor
        Rule that predicts the error from the spread.
    spread, error
        (K,) spreads and absolute errors.

    Notes
    -----
    Miscalibration area and sharpness follow Tran et al., Mach. Learn.: Sci. Technol. 1, 025006 (2020). The ENCE (Levi
    et al., Sensors 22, 5540 (2022)) is the mean, over ten bins of equal size sorted by σ, of

    .. math:: \frac{|\mathrm{RMS}(\sigma) - \mathrm{RMS}(\mathrm{error})|}{\mathrm{RMS}(\sigma)}.
    """
    curve = np.array([np.mean(error <= predictor.half_width(spread, level)) for level in LEVELS[1:-1]])
    curve = np.concatenate([[0.0], curve, [1.0]])
    sigma = predictor.sigma(spread)
    return Agreement(
        tuple(float(np.mean(error <= predictor.half_width(spread, c))) for c in COVERAGES),
        float(np.trapezoid(np.abs(curve - LEVELS), LEVELS)),
        ence(sigma, error),
        _rms(sigma),
        float(np.mean(predictor.half_width(spread, 0.9))),
        curve,
    )


def ence(sigma: Floats, error: Floats) -> float:
    """Return the expected normalized calibration error of (K,) standard deviations; see `agreement`."""
    parts = [p for p in np.array_split(np.argsort(sigma, kind="stable"), BINS) if len(p)]
    predicted = np.array([_rms(sigma[p]) for p in parts])
    if not predicted.all():
        return float("inf")
    return float(np.mean(np.abs(predicted - [_rms(error[p]) for p in parts]) / predicted))


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
