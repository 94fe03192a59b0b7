"""Calibration: what the spread of an ensemble says about its errors on frames that no member has seen."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from schnet_ase.errors import CalibrationError
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.uncertainty.calibration import (
    COVERAGE,
    FALSE_FLAG_RATE,
    MIN_MEMBERS,
    Calibration,
    Intervals,
    by_number,
    check_coverage,
    moderated,
)
from schnet_ase.uncertainty.conformal import conformal_scores
from schnet_ase.uncertainty.errors import EnsembleErrors

LOGGER = logging.getLogger("schnet_ase")


def calibrate(
    errors: EnsembleErrors,
    *,
    coverage: float = COVERAGE,
    file: str,
    sha256: str,
    members: tuple[str, ...],
    false_flag_rate: float = FALSE_FLAG_RATE,
) -> Calibration:
    """Calibrate an ensemble on frames that no member trained or validated on.

    Parameters
    ----------
    errors
        Of the ensemble on those frames.
    coverage
        That the half-widths have where no other is asked for.
    file, sha256
        Where the frames are from.
    members
        SHA-256 of the members' files.
    false_flag_rate
        Of the threshold where no other is asked for.

    Raises
    ------
    CalibrationError
        Fewer than four members, too few frames for this coverage, or members that agree exactly.

    Notes
    -----
    Coverage is on average over calibration sets and over new frames of the same distribution. That of one calibration
    set of n frames is a draw from about Beta(k, n + 1 - k), k = ⌈(n + 1) q⌉, for energies: with n = 50 and q = 0.9 a
    standard deviation of 4 %. Forces, with many atoms a frame, do better. See `conformal_scores` for the atoms of one
    frame.
    """
    check_sizes(errors.n_members, len(errors.n_atoms), coverage)
    m, moving = errors.n_members, errors.n_atoms > 1
    largest = np.sort(errors.largest_deviation[moving])
    check_coverage(coverage, len(largest))
    if not largest[0]:
        raise CalibrationError("the members agree exactly on a frame; expected members that were trained apart")
    energy = forces = None
    factors: dict[str, float] = {}
    known = errors.labelled_energies
    if _enough(int(known.sum()), "energies", coverage):
        assert errors.energy_error is not None
        energy = _intervals(
            errors.energy_std[known],
            np.abs(errors.energy_error[known]),
            np.ones(int(known.sum()), dtype=np.int64),
            dof=m - 1,
            alpha=linear_alpha(errors.energy_error[known], errors.energy_std[known], m),
        )
    known = errors.labelled_forces
    sizes = np.bincount(np.repeat(np.arange(len(errors.n_atoms)), errors.n_atoms)[known])
    sizes = sizes[sizes > 0]
    if _enough(len(sizes), "forces", coverage):
        assert errors.force_error is not None
        assert errors.force_errors is not None
        deviation, error, numbers = errors.deviation[known], errors.force_error[known], errors.numbers[known]
        dof = 3 * (m - 1)
        factors = fit_element_factors(deviation, error, numbers, dof)
        forces = _intervals(
            deviation * by_number(factors)[numbers],
            error,
            sizes,
            dof=dof,
            alpha=linear_alpha(errors.force_errors[known], errors.forces_std[known], m),
        )
    return Calibration(
        coverage=coverage,
        file=file,
        sha256=sha256,
        members=members,
        energy=energy,
        forces=forces,
        element_factors=factors,
        largest_deviations=tuple(largest.tolist()),
        false_flag_rate=false_flag_rate,
    )


def calibrate_again(errors: EnsembleErrors, earlier: Calibration) -> Calibration:
    """Calibrate on the frames and with the rates of an earlier calibration, after a model has changed.

    Parameters
    ----------
    errors
        Of the ensemble as it is now.
    earlier
        Calibration to replace.
    """
    return calibrate(
        errors,
        coverage=earlier.coverage,
        file=earlier.file,
        sha256=earlier.sha256,
        members=earlier.members,
        false_flag_rate=earlier.false_flag_rate,
    )


def _enough(n_frames: int, label: str, coverage: float) -> bool:
    """Whether a label can be calibrated; says so where only some frames have it, and too few."""
    try:
        check_coverage(coverage, n_frames)
    except CalibrationError as error:
        if n_frames:
            LOGGER.warning("no half-widths for %s: %s", label, error)
        return False
    return True


def check_sizes(n_members: int, n_frames: int, coverage: float = COVERAGE) -> None:
    """Refuse what cannot be calibrated.

    Raises
    ------
    CalibrationError
        Fewer than four members, or too few frames for this coverage.
    """
    if n_members < MIN_MEMBERS:
        raise CalibrationError(f"{n_members} members are too few for a calibration, which needs {MIN_MEMBERS}")
    check_coverage(coverage, n_frames)


def linear_alpha(error: Floats, spread: Floats, n_members: int) -> float:
    r"""The factor by which members' deviations from their mean are scaled to match the errors.

    Parameters
    ----------
    error, spread
        Same shape and unit; the spread is a standard deviation over members, ``ddof=1``. Pairs without spread are
        left out.
    n_members
        M, at least four.

    Returns
    -------
    float
        :math:`\alpha^2 = -\frac{1}{M} + \frac{M-3}{M-1} \langle \mathrm{err}^2 / s^2 \rangle` (Imbalzano et al.,
        J. Chem. Phys. 154, 074102 (2021)), ``alpha`` of i-PI's ``FFCommittee``. Zero where that is negative: the
        errors are smaller than those of a mean of M are by chance.

    Raises
    ------
    CalibrationError
        There is no spread anywhere.
    """
    some = spread > 0.0
    if not some.any():
        raise CalibrationError("the members agree exactly on all calibration frames; there is no spread to calibrate")
    ratio = float(np.mean(np.square(error[some] / spread[some])))
    return math.sqrt(max(0.0, (n_members - 3) / (n_members - 1) * ratio - 1.0 / n_members))


class Prior(NamedTuple):
    """Where a spread is moved to, and how far; see `Intervals`."""

    spread: float
    weight: float


def fit_prior(spread: Floats, dof: int) -> Prior:
    r"""Empirical-Bayes prior of variances from their estimates.

    Parameters
    ----------
    spread
        (K,) standard deviations; zeros are left out.
    dof
        :math:`\nu`, degrees of freedom of each estimate.

    Notes
    -----
    True variances are taken to be scaled inverse :math:`\chi^2_{\nu_0}` about :math:`s_0^2`; the moments of
    :math:`\ln s^2` then give :math:`s_0` and :math:`\nu_0` (Smyth 2004, on estimation of hyperparameters), and the
    weight is :math:`\nu_0 / (\nu_0 + \nu)`. No label is used. The weight is at most one half: where the spread looks
    like mere noise in distribution it must still count out of it.
    """
    logarithms = np.log(np.square(spread[spread > 0.0]))
    mean = logarithms.mean() - digamma(dof / 2) + math.log(dof / 2)
    excess = logarithms.var(ddof=1) - polygamma(1, dof / 2) if len(logarithms) > 1 else 0.0
    largest = float(dof)  # of ν₀, which is a weight of one half
    half = largest / 2
    if excess > polygamma(1, half):
        half = float(brentq(lambda x: polygamma(1, x) - excess, 1e-6, half))
    return Prior(math.exp(0.5 * (mean + digamma(half) - math.log(half))), 2 * half / (2 * half + dof))


def fit_element_factors(deviation: Floats, error: Floats, numbers: Integers, dof: int) -> dict[str, float]:
    """How many times as large the errors of each element are as those that have the same spread, on average.

    Parameters
    ----------
    deviation, error
        (A,) spreads and absolute errors of atoms.
    numbers
        (A,) their atomic numbers.
    dof
        Degrees of freedom of each spread.

    Notes
    -----
    The mean of |error| / u over the atoms of an element, in units of that over all atoms, with the u of `Intervals`.
    These few numbers are fitted to the frames that also give the scores, which promise a little too much for it:
    the tests find less than a hundredth of coverage with 50 frames.
    """
    ratio = error / moderated(deviation, *fit_prior(deviation, dof))
    if not ratio.any():
        return {}
    return {chemical_symbols[z]: float(ratio[numbers == z].mean() / ratio.mean()) for z in np.unique(numbers).tolist()}


def _intervals(spread: Floats, error: Floats, sizes: Integers, *, dof: int, alpha: float) -> Intervals:
    """From (K,) spreads and absolute errors, the frames of `sizes` one after the other."""
    prior = fit_prior(spread, dof)
    unscored = Intervals(len(sizes), prior.spread, prior.weight, alpha, (0.0,))
    scores = conformal_scores(error / unscored.scale(spread), sizes)
    return Intervals(len(sizes), prior.spread, prior.weight, alpha, tuple(scores.tolist()))
