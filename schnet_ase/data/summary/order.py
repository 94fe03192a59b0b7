"""Check whether successive frames resemble each other, as those of dynamics do."""

from __future__ import annotations

import numpy as np

from schnet_ase.geometry.arrays import Floats, Integers

FEWEST = 50
"""Number of pairs of neighbouring frames below which there is no result."""
ALIKE = 0.7
"""Neighbouring frames resemble each other if they differ by less than this share of the difference of random ones."""


def neighbor_difference(index: Integers, prints: Floats, kind: Integers) -> float | None:
    """Return the difference of neighbouring frames of a file relative to that of random ones.

    Parameters
    ----------
    index
        (F,) the number of each frame in the file.
    prints
        (F, D) fingerprints, Å.
    kind
        (F,) number of the kind of each frame; only frames of one kind are compared.

    Returns
    -------
    float or None
        The median distance of neighbours divided by that of random pairs of the same kind: about 1 for frames in random
        order. None if there are too few frames, or if all are equal.
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
    """Draw for each frame another one of its kind at random."""
    rng = np.random.default_rng(0)
    by_kind = np.argsort(kind, kind="stable")
    shuffled = np.lexsort((rng.random(len(kind)), kind))
    partner = np.empty(len(kind), dtype=np.int64)
    partner[by_kind] = shuffled
    return partner
