"""Whether large spreads go with large errors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import mannwhitneyu, spearmanr

from schnet_ase.geometry.arrays import Floats

WORST = 0.05
ORACLE_DRAWS = 100_000


class Ranking(NamedTuple):
    """Whether large spreads go with large errors; unchanged by any calibration that grows with the spread."""

    rho: float
    """Spearman's, of spread and absolute error."""
    rho_oracle: float
    """What an ensemble as large reaches whose members and truth are draws of one Gaussian; see `oracle_rho`."""
    auroc: float
    """Of the spread, for telling the worst 5 % of errors."""


def ranking(spread: Floats, error: Floats, n_members: int, dim: int) -> Ranking:
    """From (K,) spreads of some members, in `dim` components, and absolute errors."""
    return Ranking(spearman(spread, error), oracle_rho(spread, n_members, dim), auroc(spread, error))


def spearman(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation; NaN where one of the two is constant."""
    if np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return float("nan")
    return float(spearmanr(a, b).statistic)


def auroc(spread: Floats, error: Floats) -> float:
    """Probability that the spread of one of the worst 5 % of errors is larger than that of another one.

    The area under the receiver operating characteristic, as Mann and Whitney's U (Hanley and McNeil, Radiology 143,
    29 (1982)); NaN where no error is larger than the others.
    """
    worst = error > np.quantile(error, 1.0 - WORST)
    if not worst.any():
        return float("nan")
    u = mannwhitneyu(spread[worst], spread[~worst]).statistic
    return float(u / (worst.sum() * (~worst).sum()))


def oracle_rho(sigma: Floats, n_members: int, dim: int, seed: int = 0) -> float:
    """Spearman's ρ that a perfect Gaussian ensemble would reach, by simulation.

    Parameters
    ----------
    sigma
        (K,) true standard deviations: the spreads found.
    n_members
        Of the ensemble.
    dim
        Components of the quantity, 1 or 3; members and truth are normal in each, about one mean.
    seed
        Of the simulation, which repeats the K values until there are a hundred thousand or more.

    Notes
    -----
    The spreads found scatter more than the true σ, by the noise of a few members, which makes the oracle a little
    better than it could be and ρ/ρ_oracle rather too low.
    """
    rng = np.random.default_rng(seed)
    repeated = np.tile(sigma, -(-ORACLE_DRAWS // len(sigma)))
    draws = repeated[:, None] * rng.standard_normal((n_members + 1, len(repeated), dim))
    members, truth = draws[:-1], draws[-1]
    spread = np.linalg.norm(members.std(axis=0, ddof=1), axis=1)
    return spearman(spread, np.linalg.norm(members.mean(axis=0) - truth, axis=1))
