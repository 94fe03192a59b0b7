"""Split-conformal quantiles of scores that come several to a frame."""

from __future__ import annotations

import numpy as np

from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.uncertainty.calibration import ROUNDING

RESOLUTION = 200  # numbers kept of a distribution over atoms; more where there are more frames


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
