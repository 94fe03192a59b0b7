"""Frames of one molecule: each function yields geometries of one kind, of which some are labelled twice cheaper than others.

Thermal geometries come from dynamics with the force field, which decorrelate them for a hundredth of a label's cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from rdkit import Chem

from .geometry import NoGeometry, Start, at_rest, embed, langevin, start
from .xtb import Xtb

FIELD_STEPS = 250
"""Of dynamics with the force field before a frame: half a picosecond."""
SETTLING, SPACING = 12, 8
"""Steps of dynamics with GFN2-xTB before the first frame and between frames."""


class Sampled(NamedTuple):
    """A geometry to be labelled."""

    config_type: str
    temperature: float
    """K of the dynamics that it comes from; 0: none."""
    numbers: np.ndarray
    positions: np.ndarray
    """(N, 3) Å."""


Sampler = Callable[[Chem.Mol, np.random.Generator, Xtb], Iterator[Sampled]]
"""Frames of a molecule with all its hydrogens; the geometry comes from the generator."""


def temperature(rng: np.random.Generator) -> float:
    """K, half of them up to 600, the others up to 1,500."""
    return float(rng.uniform(300.0, 600.0 if rng.random() < 0.5 else 1500.0))


def field(mol: Chem.Mol, rng: np.random.Generator, xtb: Xtb) -> Iterator[Sampled]:
    """Three frames from dynamics with the force field, each at a temperature of its own."""
    at = start(embed(mol, rng))
    state = at_rest(at.positions)
    for _ in range(3):
        kelvin = temperature(rng)
        state = langevin(state, at.field, kelvin, FIELD_STEPS, rng)
        yield Sampled("field", kelvin, at.numbers, state.positions)


def dynamics(mol: Chem.Mol, rng: np.random.Generator, xtb: Xtb) -> Iterator[Sampled]:
    """Four frames from dynamics with GFN2-xTB, which begin where the force field's end."""
    at = start(embed(mol, rng))
    yield from _dynamics(at, "dynamics", temperature(rng), rng, xtb)


def _dynamics(
    at: Start, config_type: str, kelvin: float, rng: np.random.Generator, xtb: Xtb, frames: int = 4
) -> Iterator[Sampled]:
    state = langevin(at_rest(at.positions), at.field, kelvin, FIELD_STEPS, rng)
    for frame in range(frames):
        state = langevin(state, lambda x: xtb.forces(x).forces, kelvin, SPACING if frame else SETTLING, rng)
        yield Sampled(config_type, kelvin, at.numbers, state.positions)
