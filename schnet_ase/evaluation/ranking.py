"""Measures of whether a large spread means a large error."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import mannwhitneyu, spearmanr

from schnet_ase.geometry.arrays import Floats

WORST = 0.05
ORACLE_DRAWS = 100_000


class Ranking(NamedTuple):
    """Rank statistics of spread and error; any calibration that grows with the spread leaves them unchanged."""

    rho: float
    """Spearman's rank correlation of spread and absolute error."""
    rho_oracle: float
    """The same for an ensemble of this size whose members and truth are drawn from one Gaussian; see `oracle_rho`."""
    auroc: float
    """AUROC of the spread as a classifier of the worst 5 % of errors."""


def ranking(spread: Floats, error: Floats, n_members: int, dim: int) -> Ranking:
    """Compute the statistics from (K,) spreads of `n_members` members in `dim` components and (K,) absolute errors."""
    return Ranking(spearman(spread, error), oracle_rho(spread, n_members, dim), auroc(spread, error))


def spearman(a: Floats, b: Floats) -> float:
    """Return Spearman's rank correlation; NaN if `a` or `b` is constant."""
    if np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return float("nan")
    return float(spearmanr(a, b).statistic)


def auroc(spread: Floats, error: Floats) -> float:
    """Return the probability that one of the worst 5 % of errors has a larger spread than one of the others.

    This is the area under the receiver operating characteristic, computed from Mann and Whitney's U (Hanley and McNeil,
    Radiology 143, 29 (1982)); NaN if all errors are equal.
    """
    worst = error > np.quantile(error, 1.0 - WORST)
    if not worst.any():
        return float("nan")
    u = mannwhitneyu(spread[worst], spread[~worst]).statistic
    return float(u / (worst.sum() * (~worst).sum()))


def oracle_rho(sigma: Floats, n_members: int, dim: int, seed: int = 0) -> float:
    """Simulate the Spearman's ρ that a perfect Gaussian ensemble would reach.

    Parameters
    ----------
    sigma
        (K,) true standard deviations; the observed spreads are used for them.
    n_members
        Number of members of the ensemble.
    dim
        Number of components of the quantity, 1 or 3; members and truth are normal in each, about the same mean.
    seed
        Seed of the simulation, which repeats the K values until there are a hundred thousand or more.

    Notes
    -----
    The observed spreads of a few members scatter more than the true σ, so ρ_oracle is slightly too high and
    ρ/ρ_oracle slightly too low.
    """
    rng = np.random.default_rng(seed)
    repeated = np.tile(sigma, -(-ORACLE_DRAWS // len(sigma)))
    draws = repeated[:, None] * rng.standard_normal((n_members + 1, len(repeated), dim))
    members, truth = draws[:-1], draws[-1]
    spread = np.linalg.norm(members.std(axis=0, ddof=1), axis=1)
    return spearman(spread, np.linalg.norm(members.mean(axis=0) - truth, axis=1))
