"""Decide whether an ensemble is fit for dynamics; docs/learning.md says where the numbers of the rules come from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from schnet_ase.learn.audit import Generation
from schnet_ase.learn.config import LearnConfig

FORCE_ERROR = 0.1
"""Largest held-out MAE of force components, relative to their usual size, of an ensemble fit for dynamics."""
THRESHOLD = 1.0
"""Largest threshold, relative to the usual force on an atom."""


def doubts(generation: Generation, frames: Sequence[Atoms]) -> tuple[str, ...]:
    """Return reasons why a generation is not fit for dynamics, a clause each; empty if it is fit.

    Parameters
    ----------
    generation
        Generation with its errors and its threshold.
    frames
        Its labelled frames. "Usual" is the median, over frames, of a frame's mean.
    """
    forces = [frame.get_forces(apply_constraint=False) for frame in frames]
    component = float(np.median([np.abs(f).mean() for f in forces]))
    atom = float(np.median([np.linalg.norm(f, axis=1).mean() for f in forces]))
    found = []
    if not generation.force_mae <= FORCE_ERROR * component:
        found.append(
            f"the held-out force MAE is {1000.0 * generation.force_mae:.0f} meV/Å, "
            f"{100.0 * generation.force_mae / component:.0f} % of a usual force component, "
            f"{1000.0 * component:.0f} meV/Å, where at most {100.0 * FORCE_ERROR:.0f} % is fit"
        )
    if not generation.threshold <= THRESHOLD * atom:
        found.append(
            f"a frame is flagged only above {generation.threshold:.2f} eV/Å, "
            f"{100.0 * generation.threshold / atom:.0f} % of a usual force on an atom, {atom:.2f} eV/Å, where at most "
            f"{100.0 * THRESHOLD:.0f} % is fit"
        )
    return tuple(found)


def unquiet(config: LearnConfig) -> str:
    """State that the labels ran out first, as a doubt."""
    return f"max_labels = {config.max_labels} was reached before {config.dynamics.quiet:g} ps passed without a flag"


def advice(config: LearnConfig) -> str:
    """Advise what to do about doubts."""
    return (
        f"give more first frames from near {config.dynamics.temperature:g} K, more training.steps (now "
        f"{config.training.steps}) or a larger max_labels (now {config.max_labels})"
    )
