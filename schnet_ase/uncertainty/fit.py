"""Calibration: what the spread of an ensemble says about its errors on frames that no member has seen."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from schnet_ase.errors import CalibrationError
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.uncertainty.calibration import (
    COVERAGE,
    MIN_MEMBERS,
    ROUNDING,
    Calibration,
    Intervals,
    by_number,
    check_coverage,
    forces_deviation,
    moderated,
)

LOGGER = logging.getLogger("schnet_ase")
RESOLUTION = 200  # numbers kept of a distribution over atoms; more where there are more frames


class EnsembleErrors(NamedTuple):
    """What M members said of B labelled frames with A atoms in all.

    An error is NaN where a frame has no such label, and None where no frame has one.
    """

    n_members: int
    n_atoms: Integers
    """(B,)."""
    numbers: Integers
    """(A,) atomic numbers, the frames one after the other."""
    energy_std: Floats
    """(B,) eV, over members, ``ddof=1``."""
    forces_std: Floats
    """(A, 3) eV/Å, the same."""
    deviation: Floats
    """(A,) eV/Å, `forces_deviation`."""
    energy_error: Floats | None
    """(B,) eV, mean over members less label."""
    force_errors: Floats | None
    """(A, 3) eV/Å, the same."""

    @property
    def labelled_energies(self) -> NDArray[np.bool_]:
        """(B,) whether the frame has an energy."""
        return _there(self.energy_error, len(self.n_atoms))

    @property
    def labelled_forces(self) -> NDArray[np.bool_]:
        """(A,) whether the atom has a force that says anything: that on an only atom is zero for every network."""
        errors = None if self.force_errors is None else self.force_errors.sum(axis=1)
        several: NDArray[np.bool_] = np.repeat(self.n_atoms > 1, self.n_atoms)
        return _there(errors, len(self.numbers)) & several

    @property
    def largest_deviation(self) -> Floats:
        """(B,) eV/Å, the largest of each frame."""
        starts = np.cumsum(self.n_atoms) - self.n_atoms
        return np.maximum.reduceat(self.deviation, starts)

    @property
    def force_error(self) -> Floats | None:
        """(A,) eV/Å, length of each atom's error."""
        return None if self.force_errors is None else np.linalg.norm(self.force_errors, axis=1)


def _there(errors: Floats | None, length: int) -> NDArray[np.bool_]:
    return np.zeros(length, dtype=bool) if errors is None else ~np.isnan(errors)


def ensemble_errors(
    n_atoms: Integers,
    numbers: Integers,
    energy: Floats,
    reference_energy: Floats | None,
    forces: Floats,
    reference_forces: Floats | None,
) -> EnsembleErrors:
    """Spread and error of the mean from each member's predictions.

    Parameters
    ----------
    n_atoms
        (B,) atoms of each frame.
    numbers
        (A,) their atomic numbers, the frames one after the other.
    energy, reference_energy
        (M, B) and (B,) eV; the reference is NaN where a frame has none, and None where no frame has one.
    forces, reference_forces
        (M, A, 3) and (A, 3) eV/Å, in the order of `numbers`; the same.
    """
    return EnsembleErrors(
        len(energy),
        n_atoms,
        numbers,
        energy.std(axis=0, ddof=1),
        forces.std(axis=0, ddof=1),
        forces_deviation(forces),
        None if reference_energy is None else energy.mean(axis=0) - reference_energy,
        None if reference_forces is None else forces.mean(axis=0) - reference_forces,
    )


def calibrate(
    errors: EnsembleErrors, *, coverage: float = COVERAGE, file: str, sha256: str, members: tuple[str, ...]
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


def conformal_scores(scores: Floats, sizes: Integers) -> Floats:
    """What a score of a new frame stays under, with ascending probability.

    Parameters
    ----------
    scores
        (K,) of n frames, one after the other.
    sizes
        (n,) how many each frame has.

    Returns
    -------
    (L,) array
        The i-th holds with coverage i/L · n/(n + 1). With one score a frame, L = n, and these are the scores in
        order, as in split-conformal prediction.

    Notes
    -----
    Scores of one frame are correlated, so frames are what is exchangeable: every frame has the same weight, and the
    quantile that is taken for a coverage is the lowest whose level, with each frame in turn left out of the quantile
    and asked for its coverage, gives that coverage on average.
    """
    n = len(sizes)
    own = np.repeat(np.arange(n), sizes)
    weights = 1.0 / (n * sizes[own])
    order = np.argsort(scores, kind="stable")
    ascending, cumulative = scores[order], np.cumsum(weights[order])
    below = np.concatenate([[0.0], cumulative])[np.searchsorted(ascending, scores, side="left")]
    below_own = np.concatenate([(s[:, None] > s).mean(axis=1) for s in np.split(scores, np.cumsum(sizes)[:-1])])
    levels = (n * below - below_own) / (n - 1)  # each score's, among those of the other frames

    count = min(len(scores), max(n, RESOLUTION))
    coverages = np.arange(1, count + 1) / count * n / (n + 1)
    by_level = np.argsort(levels, kind="stable")
    chosen = np.searchsorted(np.cumsum(weights[by_level]), coverages - ROUNDING)
    ranks = np.searchsorted(cumulative, levels[by_level][np.minimum(chosen, len(scores) - 1)] + ROUNDING)
    quantiles: Floats = ascending[np.minimum(ranks, len(scores) - 1)]
    return quantiles
