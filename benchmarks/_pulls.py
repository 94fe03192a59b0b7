"""Bonds of a molecule pulled apart until an ensemble no longer knows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from _molecule import Bonds, pulled
from ase import Atoms

from schnet_ase import SchNet
from schnet_ase.data import Frame
from schnet_ase.data.batches import make_example
from schnet_ase.evaluation.evaluate import evaluate
from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.system import geometry
from schnet_ase.networks import StackedSchNet

STEP = 0.01  # Å
FARTHEST = 0.5  # Å beyond the longest length in training


class Pull(NamedTuple):
    """One bond pulled apart from one structure."""

    kind: str
    """Like ``O–H``."""
    start: int
    """0: the relaxed structure; else a reference frame."""
    beyond: Floats
    """(K,) Å that the bond is longer than its longest length in training, at each step."""
    deviation: Floats
    """(K,) eV/Å, the largest forces_deviation there."""

    def flagged_at(self, threshold: float) -> float:
        """Å beyond the longest length in training at the first step above `threshold`; infinite without one."""
        flagged = self.beyond[~(self.deviation <= threshold)]  # also where it is not a number
        return float(flagged[0]) if len(flagged) else math.inf


def pull_bonds(
    models: Sequence[SchNet], starts: Sequence[Atoms], training: Bonds, report: Callable[[], None] = lambda: None
) -> list[Pull]:
    """Pull every bond but those of rings, from every start; `training` has the longest lengths."""
    ensemble = StackedSchNet(models)
    pulls = []
    for bond, kind in enumerate(training.names(starts[0].numbers)):
        for number, start in enumerate(starts):
            report()
            first = float(training.lengths(start.positions)[bond] - training.longest[bond])
            by = np.arange(0.0, max(0.0, FARTHEST - first) + STEP / 2, STEP)
            try:
                frames = [Frame(geometry(pulled(start, training, bond, float(b))), None, None) for b in by]
            except ValueError:  # a ring does not part at one bond
                continue
            evaluation = evaluate(ensemble, [make_example(frame, ensemble.config.pair_cutoff) for frame in frames])
            pulls.append(Pull(kind, number, first + by, evaluation.ensemble_errors().largest_deviation))
    return pulls
