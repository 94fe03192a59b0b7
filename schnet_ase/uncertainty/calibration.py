"""From the spread of an ensemble to half-widths that hold the true error with a stated coverage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from pydantic import Field
from pydantic.dataclasses import dataclass

from schnet_ase.errors import CalibrationError
from schnet_ase.geometry.arrays import Floats, Integers

COVERAGE = 0.9
FALSE_FLAG_RATE = 1e-3
MIN_MEMBERS = 4
ROUNDING = 1e-9  # 0.9 / 0.1 is not 9 in floating point

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def forces_deviation(forces: Floats) -> Floats:
    """Spread of each atom's force over members, eV/Å: (M, N, 3) to (N,), see `SchNetEnsembleCalculator`."""
    squared = ((forces - forces.mean(axis=0)) ** 2).sum(axis=(0, 2))
    deviation: Floats = np.sqrt(squared / (len(forces) - 1))
    return deviation


def moderated(spread: Floats | float, prior_spread: float, prior_weight: float) -> Floats:
    """A spread moved towards the typical one, u(s) of `Intervals`."""
    u: Floats = np.sqrt((1.0 - prior_weight) * np.square(spread) + prior_weight * prior_spread**2)
    return u


def by_number(factors: Mapping[str, float]) -> Floats:
    """Factors of elements by atomic number; of an element that has none the largest, or 1 where there are none."""
    table = np.full(len(chemical_symbols), max(factors.values(), default=1.0))
    for symbol, factor in factors.items():
        table[atomic_numbers[symbol]] = factor
    return table


@dataclass(frozen=True)
class Intervals:
    r"""Conformal intervals of one quantity.

    Notes
    -----
    A spread :math:`s` of a few members is itself uncertain, so it is first moved towards the typical one,

    .. math:: u^2(s) = (1 - w)\, s^2 + w\, s_0^2,

    the empirical-Bayes posterior of a variance (Smyth, Stat. Appl. Genet. Mol. Biol. 3, article 3 (2004)), see
    `fit_prior`. The half-width is :math:`u(s)` times a quantile of the scores :math:`|\mathrm{error}| / u(s)` of the
    calibration frames: split-conformal prediction with locally weighted residuals (Lei et al., J. Am. Stat. Assoc.
    113, 1094 (2018)).
    """

    n_frames: Annotated[int, Field(ge=1)]
    """Frames behind the scores."""
    prior_spread: Positive
    """s₀, in the unit of the spread."""
    prior_weight: Annotated[float, Field(ge=0, le=1)]
    """w."""
    alpha: NotNegative
    """The factor to multiply deviations from the mean with; see `linear_alpha`."""
    scores: Annotated[tuple[NotNegative, ...], Field(min_length=1)]
    """Ascending; |error| / u of a new frame stays under the i-th of L with coverage i/L · n/(n + 1)."""

    def __post_init__(self) -> None:
        if any(a > b for a, b in zip(self.scores, self.scores[1:], strict=False)):
            raise ValueError("scores are not in ascending order")

    def scale(self, spread: Floats | float) -> Floats:
        """u(s)."""
        return moderated(spread, self.prior_spread, self.prior_weight)

    def quantile(self, coverage: float) -> float:
        """The score that a new frame's stays under with probability `coverage`; infinite if frames are too few."""
        level = coverage * (self.n_frames + 1) / self.n_frames
        index = math.ceil(level * len(self.scores) - ROUNDING)
        return self.scores[max(index, 1) - 1] if index <= len(self.scores) else math.inf

    def half_width(self, spread: Floats | float, coverage: float) -> Floats:
        """Half-widths, in the unit of the spread.

        Raises
        ------
        CalibrationError
            There are too few calibration frames for this coverage.
        """
        check_coverage(coverage, self.n_frames)
        return self.scale(spread) * self.quantile(coverage)


@dataclass(frozen=True)
class Calibration:
    """What turns an ensemble's spread into uncertainties; a part of its card."""

    coverage: Annotated[float, Field(gt=0, lt=1)]
    """Of the half-widths that are given when no other coverage is asked for."""
    file: str
    """Name of the file with the calibration frames, none of which a member trained or validated on."""
    sha256: str
    members: Annotated[tuple[str, ...], Field(min_length=MIN_MEMBERS)]
    """SHA-256 of the members' files: of others it says nothing."""
    energy: Intervals | None
    """|energy error| against ``energy_std``, eV."""
    forces: Intervals | None
    """Length of an atom's force error against `scaled_deviation`, eV/Å."""
    largest_deviations: Annotated[tuple[Positive, ...], Field(min_length=2)]
    """Ascending, eV/Å: of each calibration frame the largest ``forces_deviation``."""
    element_factors: dict[str, NotNegative] = Field(default_factory=dict)
    """By symbol, how many times as large the force errors of an element are as those of others of the same spread."""

    def __post_init__(self) -> None:
        for intervals in (self.energy, self.forces):
            if intervals is not None:
                check_coverage(self.coverage, intervals.n_frames)
        if any(a > b for a, b in zip(self.largest_deviations, self.largest_deviations[1:], strict=False)):
            raise ValueError("largest_deviations are not in ascending order")
        if strange := set(self.element_factors) - set(chemical_symbols):
            raise ValueError(f"element_factors has {', '.join(sorted(strange))}, which is no element")

    @cached_property
    def _factors(self) -> Floats:
        return by_number(self.element_factors)

    def scaled_deviation(self, deviation: Floats, numbers: Integers) -> Floats:
        """``forces_deviation`` times the factors of the atoms' elements: (N,) to (N,), what `forces` starts from."""
        scaled: Floats = deviation * self._factors[numbers]
        return scaled

    def forces_half_width(self, deviation: Floats, numbers: Integers, coverage: float) -> Floats:
        """Half-widths of the lengths of atoms' force errors.

        Parameters
        ----------
        deviation
            (N,) ``forces_deviation``, eV/Å.
        numbers
            (N,) atomic numbers. An element that the calibration frames lack counts as the worst that they have.
        coverage
            Between 0 and 1.

        Returns
        -------
        (N,) array
            eV/Å.

        Raises
        ------
        CalibrationError
            There were no forces, or too few frames for this coverage.
        """
        if self.forces is None:
            raise CalibrationError("the calibration frames had no forces; calibrate on frames that have")
        return self.forces.half_width(self.scaled_deviation(deviation, numbers), coverage)

    @property
    def n_frames(self) -> int:
        """Number of calibration frames."""
        return len(self.largest_deviations)

    def threshold(self, false_flag_rate: float = FALSE_FLAG_RATE) -> float:
        r"""The largest ``forces_deviation`` that a frame like the calibration frames exceeds with this probability.

        Parameters
        ----------
        false_flag_rate
            Per frame, between 0 and 1.

        Returns
        -------
        float
            eV/Å.

        Raises
        ------
        CalibrationError
            The rate is not between 0 and 1.

        Notes
        -----
        From rates of 1/(n + 1) on, n frames, an order statistic: no assumption is made. Below that the frames hold no
        such event, and the tail is extrapolated as a power law fitted to the largest k, a quarter of the frames,

        .. math:: d_r = d_{n-k} \left(\frac{k}{n r}\right)^\gamma, \quad
                  \gamma = \frac{1}{k} \sum_{i > n-k} \ln \frac{d_i}{d_{n-k}}

        (Weissman, J. Am. Stat. Assoc. 73, 812 (1978), with Hill's estimator), and never less than the largest value
        seen. From 50 frames a rate of 1 in 1,000, or of 1 in 100, can be several times off for a single ensemble: see
        the rates measured in ``docs/uncertainty-measured.md``. Give more frames to be surer.
        """
        if not 0.0 < false_flag_rate < 1.0:
            raise CalibrationError(f"false-flag rate is {false_flag_rate}; expected a number between 0 and 1")
        n, deviations = self.n_frames, np.array(self.largest_deviations)
        rank = math.ceil((n + 1) * (1.0 - false_flag_rate) - ROUNDING)
        if rank <= n:
            return float(deviations[max(rank, 1) - 1])
        k = math.ceil(n / 4)
        start = deviations[n - k - 1]
        exponent = np.mean(np.log(deviations[n - k :] / start))
        return float(max(start * (k / (n * false_flag_rate)) ** exponent, deviations[-1]))


def check_coverage(coverage: float, n_frames: int) -> None:
    """Refuse a coverage that n frames cannot promise: that of the largest of n scores is n/(n + 1).

    Raises
    ------
    CalibrationError
        The coverage is not between 0 and 1, or the frames are too few.
    """
    if not 0.0 < coverage < 1.0:
        raise CalibrationError(f"coverage is {coverage}; expected a number between 0 and 1, such as {COVERAGE}")
    needed = max(2, math.ceil(coverage / (1.0 - coverage) - ROUNDING))
    if n_frames < needed:
        raise CalibrationError(
            f"{n_frames} calibration frames are too few for a coverage of {coverage:g}, which needs {needed}; "
            "give more frames that no member trained or validated on, or ask for less"
        )
