"""Whether frames that follow one another are alike, as those of dynamics are."""

from __future__ import annotations

import numpy as np

from schnet_ase.geometry.arrays import Floats, Integers

FEWEST = 50
"""Pairs of neighbouring frames below which nothing is said."""
ALIKE = 0.7
"""Neighbouring frames that differ by less than this share of what random ones do are alike."""


def neighbor_difference(index: Integers, prints: Floats, kind: Integers) -> float | None:
    """How far neighbouring frames of a file are apart, by the distance of random ones.

    Parameters
    ----------
    index
        (F,) the number of each frame in the file.
    prints
        (F, D) fingerprints, Å.
    kind
        (F,) which of them can be compared.

    Returns
    -------
    float or None
        The median distance of neighbours divided by that of random pairs of the same kind: about 1 for frames in random
        order. None where there are too few, or where all are the same.
    """
    follows = np.flatnonzero((np.diff(index) == 1) & (np.diff(kind) == 0))
    if len(follows) < FEWEST:
        return None
    partner = _shuffled_within(kind)[follows]
    neighbors = np.linalg.norm(prints[follows + 1] - prints[follows], axis=1)
    strangers = np.linalg.norm(prints[partner] - prints[follows], axis=1)
    typical = float(np.median(strangers))
    return float(np.median(neighbors)) / typical if typical > 0.0 else None


def _shuffled_within(kind: Integers) -> Integers:
    """For each frame another one of its kind, drawn at random."""
    rng = np.random.default_rng(0)
    by_kind = np.argsort(kind, kind="stable")
    shuffled = np.lexsort((rng.random(len(kind)), kind))
    partner = np.empty(len(kind), dtype=np.int64)
    partner[by_kind] = shuffled
    return partner
