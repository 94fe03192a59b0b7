"""Pulling bonds of a molecule apart until an ensemble becomes uncertain."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms

from schnet_ase import SchNet
from schnet_ase.data import Frame
from schnet_ase.data.batches import make_example
from schnet_ase.evaluation.evaluate import evaluate
from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.system import geometry
from schnet_ase.networks import StackedSchNet
from schnet_ase.stability.bonds import Bonds

STEP = 0.01  # Å
FARTHEST = 0.5  # Å beyond the longest length in training


class Pull(NamedTuple):
    """One bond pulled apart from one structure."""

    kind: str
    """Kind of the bond, such as ``O–H``."""
    start: int
    """Index of the start: 0 is the relaxed structure, others are reference frames."""
    beyond: Floats
    """(K,) Å by which the bond is longer, at each step, than its longest length in training."""
    deviation: Floats
    """(K,) eV/Å, largest forces_deviation at each step."""

    def flagged_at(self, threshold: float) -> float:
        """Return `beyond` at the first step above `threshold`, Å; infinite if there is none."""
        flagged = self.beyond[~(self.deviation <= threshold)]  # also NaN
        return float(flagged[0]) if len(flagged) else math.inf


def pull_bonds(
    models: Sequence[SchNet],
    starts: Sequence[Atoms],
    bonds: Bonds,
    longest: Floats,
    report: Callable[[], None] = lambda: None,
) -> list[Pull]:
    """Pull every bond outside rings, from every start; `longest` are the bonds' longest lengths in training, Å."""
    ensemble = StackedSchNet(models)
    pulls = []
    for bond, kind in enumerate(bonds.names()):
        for number, start in enumerate(starts):
            report()
            try:
                beyond, longer = frames_of(start, bonds, bond, float(longest[bond]))
            except ValueError:  # a ring does not part at one bond
                continue
            frames = [Frame(geometry(atoms), None, None) for atoms in longer]
            evaluation = evaluate(ensemble, [make_example(frame, ensemble.config.pair_cutoff) for frame in frames])
            pulls.append(Pull(kind, number, beyond, evaluation.ensemble_errors().largest_deviation))
    return pulls


def frames_of(start: Atoms, bonds: Bonds, bond: int, longest: float) -> tuple[Floats, list[Atoms]]:
    """Return by how many Å a bond is longer than `longest` in each frame of a pull, and the frames.

    Raises
    ------
    ValueError
        The bond is part of a ring.
    """
    first = float(bonds.lengths(start.positions)[bond] - longest)
    by = np.arange(0.0, max(0.0, FARTHEST - first) + STEP / 2, STEP)
    return first + by, [pulled(start, bonds, bond, float(b)) for b in by]


def pulled(atoms: Atoms, bonds: Bonds, bond: int, by: float) -> Atoms:
    """Return `atoms` with one bond longer by `by` Å; the smaller part of the molecule is moved along the bond."""
    i, j = int(bonds.first[bond]), int(bonds.second[bond])
    others = [(a, b) for k, (a, b) in enumerate(zip(bonds.first, bonds.second, strict=True)) if k != bond]
    sides = []
    for start in (i, j):
        reached, edge = {start}, {start}
        while edge:
            edge = {b for pair in others for a, b in (pair, pair[::-1]) if a in edge} - reached
            reached |= edge
        sides.append(sorted(reached))
    if set(sides[0]) & set(sides[1]):
        raise ValueError(f"the bond between atoms {i} and {j} is part of a ring")
    direction = atoms.positions[j] - atoms.positions[i]
    direction /= np.linalg.norm(direction)
    moving, sign = (sides[0], -1.0) if len(sides[0]) < len(sides[1]) else (sides[1], 1.0)
    longer = atoms.copy()
    longer.positions[moving] += sign * by * direction
    return longer
