"""Turn the spread of an ensemble into half-widths that bound the true error with a stated coverage."""

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
    """Return the (N,) spread of each atom's force over members, eV/Å, from (M, N, 3); see
    `SchNetEnsembleCalculator`."""
    squared = ((forces - forces.mean(axis=0)) ** 2).sum(axis=(0, 2))
    deviation: Floats = np.sqrt(squared / (len(forces) - 1))
    return deviation


def moderated(spread: Floats | float, prior_spread: float, prior_weight: float) -> Floats:
    """Return the moderated spread u(s) of `Intervals`, which is moved towards the typical spread."""
    u: Floats = np.sqrt((1.0 - prior_weight) * np.square(spread) + prior_weight * prior_spread**2)
    return u


def by_number(factors: Mapping[str, float]) -> Floats:
    """Return the factors of elements by atomic number; elements without one get the largest, or 1 if there are none."""
    table = np.full(len(chemical_symbols), max(factors.values(), default=1.0))
    for symbol, factor in factors.items():
        table[atomic_numbers[symbol]] = factor
    return table


@dataclass(frozen=True)
class Intervals:
    r"""Conformal intervals of one quantity.

    Notes
    -----
    A spread :math:`s` of a few members is itself uncertain. Therefore it is first moved towards the typical one,

    .. math:: u^2(s) = (1 - w)\, s^2 + w\, s_0^2,

    the empirical-Bayes posterior of a variance (Smyth, Stat. Appl. Genet. Mol. Biol. 3, article 3 (2004)), see
    `fit_prior`. The half-width is :math:`u(s)` times a quantile of the scores :math:`|\mathrm{error}| / u(s)` of the
    calibration frames: split-conformal prediction with locally weighted residuals (Lei et al., J. Am. Stat. Assoc.
    113, 1094 (2018)).
    """

    n_frames: Annotated[int, Field(ge=1)]
    """Number of frames behind the scores."""
    prior_spread: Positive
    """s₀, in the unit of the spread."""
    prior_weight: Annotated[float, Field(ge=0, le=1)]
    """w."""
    alpha: NotNegative
    """Factor that multiplies deviations from the mean; see `linear_alpha`."""
    scores: Annotated[tuple[NotNegative, ...], Field(min_length=1)]
    """Ascending; |error| / u of a new frame is below the i-th of L scores with coverage i/L · n/(n + 1)."""

    def __post_init__(self) -> None:
        if any(a > b for a, b in zip(self.scores, self.scores[1:], strict=False)):
            raise ValueError("scores are not in ascending order")

    def scale(self, spread: Floats | float) -> Floats:
        """Return u(s), in the unit of the spread."""
        return moderated(spread, self.prior_spread, self.prior_weight)

    def quantile(self, coverage: float) -> float:
        """Return the bound on a new frame's score with probability `coverage`; infinite if there are too few frames."""
        level = coverage * (self.n_frames + 1) / self.n_frames
        index = math.ceil(level * len(self.scores) - ROUNDING)
        return self.scores[max(index, 1) - 1] if index <= len(self.scores) else math.inf

    def half_width(self, spread: Floats | float, coverage: float) -> Floats:
        """Return half-widths, in the unit of the spread.

        Raises
        ------
        CalibrationError
            There are too few calibration frames for this coverage.
        """
        check_coverage(coverage, self.n_frames)
        return self.scale(spread) * self.quantile(coverage)


@dataclass(frozen=True)
class Calibration:
    """Turns an ensemble's spread into uncertainties; part of its card."""

    coverage: Annotated[float, Field(gt=0, lt=1)]
    """Default coverage of half-widths."""
    file: str
    """Name of the file with the calibration frames, none of which a member trained or validated on."""
    sha256: str
    members: Annotated[tuple[str, ...], Field(min_length=MIN_MEMBERS)]
    """SHA-256 of the members' files; the calibration does not apply to other members."""
    energy: Intervals | None
    """|energy error| against ``energy_std``, eV."""
    forces: Intervals | None
    """Length of an atom's force error against `scaled_deviation`, eV/Å."""
    largest_deviations: Annotated[tuple[Positive, ...], Field(min_length=2)]
    """Largest ``forces_deviation`` of each calibration frame, ascending, eV/Å."""
    element_factors: dict[str, NotNegative] = Field(default_factory=dict)
    """Ratio, by symbol, of an element's force errors to those of all elements at the same spread."""
    false_flag_rate: Annotated[float, Field(gt=0, lt=1)] = FALSE_FLAG_RATE
    """Probability that a frame like the calibration frames is above the default threshold."""

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
        """Multiply ``forces_deviation`` by the factors of the atoms' elements, (N,) to (N,): the spread for
        `forces`."""
        scaled: Floats = deviation * self._factors[numbers]
        return scaled

    def forces_half_width(self, deviation: Floats, numbers: Integers, coverage: float) -> Floats:
        """Return half-widths of the lengths of the atoms' force errors.

        Parameters
        ----------
        deviation
            (N,) ``forces_deviation``, eV/Å.
        numbers
            (N,) atomic numbers. An element that the calibration frames lack gets the factor of their worst element.
        coverage
            Requested coverage, between 0 and 1.

        Returns
        -------
        (N,) array
            eV/Å.

        Raises
        ------
        CalibrationError
            The calibration frames had no forces, or are too few for this coverage.
        """
        if self.forces is None:
            raise CalibrationError("the calibration frames had no forces; calibrate on frames that have")
        return self.forces.half_width(self.scaled_deviation(deviation, numbers), coverage)

    @property
    def n_frames(self) -> int:
        """Number of calibration frames."""
        return len(self.largest_deviations)

    @property
    def exceeded_by(self) -> str:
        """Share of frames like the calibration frames that exceed the default threshold, in words."""
        return f"1 in {round(1.0 / self.false_flag_rate):,}"

    def threshold(self, false_flag_rate: float | None = None) -> float:
        r"""Return the ``forces_deviation`` that a frame like the calibration frames exceeds with this probability.

        Parameters
        ----------
        false_flag_rate
            Probability per frame, between 0 and 1; None: that of the calibration.

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
        For n frames and rates of at least 1/(n + 1) it is an order statistic, which needs no assumption. For smaller
        rates the frames contain no such event, and a power law fitted to the largest k, a quarter of the frames,
        extrapolates:

        .. math:: d_r = d_{n-k} \left(\frac{k}{n r}\right)^\gamma, \quad
                  \gamma = \frac{1}{k} \sum_{i > n-k} \ln \frac{d_i}{d_{n-k}}

        (Weissman, J. Am. Stat. Assoc. 73, 812 (1978), with Hill's estimator). The result is never below the largest
        value of the frames. With 50 frames, a rate of 1 in 1,000 or 1 in 100 can be off by a factor of several for a
        single ensemble: see ``docs/uncertainty-measured.md``. More frames make it more certain.
        """
        rate = self.false_flag_rate if false_flag_rate is None else false_flag_rate
        if not 0.0 < rate < 1.0:
            raise CalibrationError(f"false-flag rate is {rate}; expected a number between 0 and 1")
        n, deviations = self.n_frames, np.array(self.largest_deviations)
        rank = math.ceil((n + 1) * (1.0 - rate) - ROUNDING)
        if rank <= n:
            return float(deviations[max(rank, 1) - 1])
        k = math.ceil(n / 4)
        start = deviations[n - k - 1]
        exponent = np.mean(np.log(deviations[n - k :] / start))
        return float(max(start * (k / (n * rate)) ** exponent, deviations[-1]))


def check_coverage(coverage: float, n_frames: int) -> None:
    """Refuse a coverage that n frames cannot guarantee: that of the largest of n scores is n/(n + 1).

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
