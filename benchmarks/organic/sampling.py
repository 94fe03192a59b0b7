"""Frames of one molecule or cluster: each function yields geometries to be labelled, a few of one molecule.

Thermal geometries come from dynamics with the force field, which decorrelate them for a hundredth of a label's cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from ase.optimize import BFGS
from rdkit import Chem

from .deform import Deformation, apart, compressed, pulled, rattled, strained, turned
from .geometry import MASS, Moving, Start, at_rest, embed, langevin, start
from .xtb import Xtb, XtbCalculator

FIELD_STEPS = 250
"""Of dynamics with the force field before a frame: half a picosecond."""
SETTLING, SPACING = 12, 8
"""Steps of dynamics with GFN2-xTB before the first frame and between frames."""
STEPS = (0, 2, 5, 10, 20, 80)
"""Of the optimizer that are kept; the last one too."""

ORDINARY = ("dynamics", "field", "driven", "cluster", "optimizer")
"""Kinds of frames that users' runs meet."""


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


def cluster(mol: Chem.Mol, rng: np.random.Generator, xtb: Xtb) -> Iterator[Sampled]:
    """Four frames from dynamics of several molecules, which stay together at these temperatures."""
    at = start(embed(mol, rng))
    yield from _dynamics(at, "cluster", float(rng.uniform(150.0, 600.0)), rng, xtb)


def deformed(mol: Chem.Mol, rng: np.random.Generator, xtb: Xtb) -> Iterator[Sampled]:
    """One frame of each deformation of thermal geometries, two of torsions."""
    yield from _deformed(mol, rng, {"strained": strained, "compressed": compressed, "rattled": rattled}, 1)
    yield from _deformed(mol, rng, {"pulled": pulled}, 1)
    yield from _deformed(mol, rng, {"torsion": turned}, 2)


def approach(mol: Chem.Mol, rng: np.random.Generator, xtb: Xtb) -> Iterator[Sampled]:
    """Five frames of molecules nearer to each other than they like or farther, and one of them together."""
    yield from _deformed(mol, rng, {"approach": apart}, 5)
    yield from _deformed(mol, rng, {"cluster": lambda at, positions, rng: positions}, 1)


def _deformed(
    mol: Chem.Mol, rng: np.random.Generator, deformations: Mapping[str, Deformation], times: int
) -> Iterator[Sampled]:
    at = start(embed(mol, rng))
    state = at_rest(at.positions)
    for config_type, deformation in deformations.items():
        for _ in range(times):
            kelvin = float(rng.uniform(100.0, 800.0))
            state = langevin(state, at.field, kelvin, FIELD_STEPS // 2, rng)
            positions = deformation(at, state.positions, rng)
            if positions is not None:
                yield Sampled(config_type, kelvin, at.numbers, positions)


def relaxation(mol: Chem.Mol, rng: np.random.Generator, xtb: Xtb) -> Iterator[Sampled]:
    """Steps of an optimizer from two conformers, one as RDKit guesses it and one of the force field."""
    for relaxed in (False, True):
        at = start(embed(mol, rng), relaxed)
        atoms = Atoms(at.numbers, at.positions)
        atoms.calc = XtbCalculator(xtb)
        kept = []
        with BFGS(atoms, logfile=None) as optimizer:
            for step, _ in enumerate(optimizer.irun(fmax=0.02, steps=STEPS[-1])):
                if step in STEPS:
                    kept.append(atoms.positions.copy())
        if len(kept) < len(STEPS):
            kept.append(atoms.positions.copy())
        for positions in kept:
            yield Sampled("optimizer", 0.0, at.numbers, positions)


def collision(mol: Chem.Mol, rng: np.random.Generator, xtb: Xtb) -> Iterator[Sampled]:
    """Six frames of two molecules thrown at each other."""
    at = start(embed(mol, rng, contact=2.5), relaxed=False)
    kelvin = float(rng.uniform(100.0, 600.0))
    first = (at.parts == 0)[:, None]
    direction = at.positions[~first[:, 0]].mean(0) - at.positions[first[:, 0]].mean(0)
    direction /= np.linalg.norm(direction)
    n, m = int(first.sum()), int((~first).sum())
    speed = np.sqrt(2.0 * rng.uniform(0.3, 5.0) * (1 / n + 1 / m) / MASS)  # eV, relative
    velocities = np.sqrt(units.kB * kelvin / MASS) * rng.standard_normal(at.positions.shape)
    velocities += direction * speed * np.where(first, m, -n) / (n + m)
    state = Moving(at.positions, velocities)
    for _ in range(6):
        state = langevin(state, lambda x: xtb.forces(x).forces, kelvin, SPACING, rng, friction=0.0)
        yield Sampled("collision", kelvin, at.numbers, state.positions)
