"""Whether errors are as large as a spread predicts: coverage, calibration, sharpness."""

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
    """What a spread is taken to say about the error."""

    def sigma(self, spread: Floats) -> Floats:
        """Root-mean-square error expected."""

    def half_width(self, spread: Floats, coverage: float) -> Floats:
        """What holds the error with this coverage; infinite where that cannot be said."""


class Gaussian(NamedTuple):
    """Errors as vectors of `dim` components, each normal with the standard deviation α × spread / √dim."""

    alpha: float
    dim: int

    def sigma(self, spread: Floats) -> Floats:
        return self.alpha * spread

    def half_width(self, spread: Floats, coverage: float) -> Floats:
        chi_square = float(chdtri(self.dim, 1.0 - coverage))
        return self.alpha * spread * math.sqrt(chi_square / self.dim)


class Conformal(NamedTuple):
    """The half-widths of a calibration."""

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
    """Between the curve of observed against expected coverage and the diagonal; 0 to 0.5."""
    ence: float
    """Expected normalized calibration error."""
    sharpness: float
    """Root mean square of σ, in the unit of the spread."""
    half_width: float
    """Mean at 90 %, in the unit of the spread."""
    curve: Floats
    """(101,) observed coverage at the expected ones 0, 0.01, ..., 1."""


def agreement(predictor: Predictor, spread: Floats, error: Floats) -> Agreement:
    r"""Coverage, miscalibration area, ENCE and sharpness.

    Parameters
    ----------
    predictor
        What the spread is taken to say.
    spread, error
        (K,) spreads and absolute errors.

    Notes
    -----
    Miscalibration area and sharpness as in Tran et al., Mach. Learn.: Sci. Technol. 1, 025006 (2020). ENCE (Levi et
    al., Sensors 22, 5540 (2022)): the mean over ten bins of equally many, by σ, of

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
    """Expected normalized calibration error of (K,) standard deviations; see `agreement`."""
    parts = [p for p in np.array_split(np.argsort(sigma, kind="stable"), BINS) if len(p)]
    predicted = np.array([_rms(sigma[p]) for p in parts])
    if not predicted.all():
        return float("inf")
    return float(np.mean(np.abs(predicted - [_rms(error[p]) for p in parts]) / predicted))


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
