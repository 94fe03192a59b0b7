"""Frames of many molecules that a trained network moves: GFN2-xTB is asked for nothing but labels.

One member drives, nobody watches: `active` looks for what an ensemble does not know, this module for breadth.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.optimize import BFGS
from rdkit import Chem
from scipy.spatial.distance import pdist

from schnet_ase import SchNetCalculator
from schnet_ase.errors import StructureError

from .geometry import Forces, at_rest, embed, langevin, start
from .plan import ROUND, Part, Stream, Task
from .sampling import Sampled, temperature
from .xtb import Xtb

FIRST_ROUND, FIRST_DRUGS = 200, 500
"""Where the two streams begin in their families, behind the molecules of `make`."""
DRUG_LIKE = ("drugs", "like-drugs", "dipeptides", "tripeptides")
"""Families of the second stream: larger molecules, of which a round takes few."""
RELAXATIONS = 0.2
"""Share of the molecules that are relaxed instead."""
STEPS = (0, 3, 8, 20)
"""Of the optimizer that are kept."""
SETTLING, SPACING, FRAMES = 75, 25, 4
"""Steps of 2 fs before the first frame and between frames, and frames of a run."""
NEAREST = 0.5
"""Å; a run ends where atoms come nearer, in a hole of the network."""


def tasks(entry: Path, first: int, rounds: int) -> Iterator[Task]:
    """Shards of frames that the first member of an entry finds, two streams a round.

    Parameters
    ----------
    entry
        Folder of the entry.
    first
        Rounds that are left to earlier ensembles, whose molecules these frames do not repeat.
    rounds
        Number of shards of each stream.
    """
    sampler = functools.partial(driven, entry=entry)
    everything = tuple(Part(name, 0, n, sampler) for name, n in ROUND.items() if name != "pairs")
    drugs = tuple(Part(name, 0, ROUND[name], sampler) for name in DRUG_LIKE)
    for number in range(first, first + rounds):
        yield Task(Stream("driven", everything), FIRST_ROUND + number)
        yield Task(Stream("driven-drugs", drugs), FIRST_DRUGS + number)


def driven(mol: Chem.Mol, rng: np.random.Generator, xtb: Xtb, *, entry: Path) -> Iterator[Sampled]:
    """Four frames of dynamics, or of a relaxation from RDKit's geometry."""
    relaxes = rng.random() < RELAXATIONS
    at = start(embed(mol, rng), relaxed=not relaxes)
    kelvin = 0.0 if relaxes else temperature(rng)
    atoms = Atoms(at.numbers, at.positions, calculator=_calculator(entry))
    found = _relaxed(atoms) if relaxes else _moved(at.positions, _forces(atoms), kelvin, rng)
    try:
        for positions in found:
            if not pdist(positions).min() > NEAREST:  # not a number neither
                return
            yield Sampled("driven", kelvin, at.numbers, positions)
    except StructureError:  # an atom that left the others
        return


@functools.cache
def _calculator(entry: Path) -> SchNetCalculator:
    """Calculator of a process, which compiles and loads once."""
    return SchNetCalculator(entry)


def _forces(atoms: Atoms) -> Forces:
    def forces(positions: np.ndarray) -> np.ndarray:
        atoms.positions = positions
        return atoms.get_forces()

    return forces


def _moved(positions: np.ndarray, forces: Forces, kelvin: float, rng: np.random.Generator) -> Iterator[np.ndarray]:
    state = at_rest(positions)
    for frame in range(FRAMES):
        state = langevin(state, forces, kelvin, SPACING if frame else SETTLING, rng)
        yield state.positions


def _relaxed(atoms: Atoms) -> Iterator[np.ndarray]:
    with BFGS(atoms, logfile=None) as optimizer:
        for step, _ in enumerate(optimizer.irun(fmax=0.02, steps=STEPS[-1])):
            if step in STEPS:
                yield atoms.get_positions()
