"""Frames on which an earlier ensemble is uncertain: one member moves molecules new to it, and all members check.

The dynamics, the flags and the guard are those of the package, as a user's own run has them.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.optimize import BFGS
from rdkit import Chem

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator
from schnet_ase.errors import RunawayError, StructureError, UncertaintyExceeded
from schnet_ase.monitor.monitor import UncertaintyMonitor

from .geometry import embed, start
from .plan import ROUND, Part, Stream, Task
from .sampling import Sampled, temperature
from .xtb import Xtb

FIRST_ROUND = 1000
"""Rounds of a generation begin at this multiple of its number, with molecules that earlier ones did not draw."""
LEG = 150
"""Steps of 1 fs after which an unflagged frame is labelled; a run has two legs."""
RELAXATIONS = 0.2
"""Share of the molecules that are relaxed instead."""
RELAXATION_STEPS = 80
INTERVAL = 10
"""Steps between checks by all members."""
CONTEXT = 10
"""Frames before a flagged one of which the first is labelled too."""


def tasks(entry: Path, generation: int, rounds: int) -> Iterator[Task]:
    """Shards of the frames that an ensemble finds.

    Parameters
    ----------
    entry
        Folder of the calibrated ensemble.
    generation
        How often ensembles have found frames, this one included.
    rounds
        Number of shards, each with as many molecules of every family as a round takes.
    """
    sampler = functools.partial(explored, entry=entry)
    parts = tuple(Part(name, 0, n, sampler) for name, n in ROUND.items() if name != "pairs")
    stream = Stream(f"explored-{generation}", parts, for_training=True)
    for number in range(rounds):
        yield Task(stream, FIRST_ROUND * generation + number)


def explored(mol: Chem.Mol, rng: np.random.Generator, xtb: Xtb, *, entry: Path) -> Iterator[Sampled]:
    """Flagged frames of dynamics or of a relaxation, and frames in between."""
    relaxes = rng.random() < RELAXATIONS
    at = start(embed(mol, rng), relaxed=not relaxes and rng.random() < 0.7)
    kelvin = 0.0 if relaxes else temperature(rng)
    driver, ensemble = _calculators(entry)
    atoms = Atoms(at.numbers, at.positions, calculator=driver)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "flagged.extxyz"
        monitor = UncertaintyMonitor(
            atoms,
            ensemble=ensemble,
            threshold=threshold(ensemble),
            interval=INTERVAL,
            action="stop",
            file=file,
            log=Path(folder) / "uncertainty.csv",
            context=CONTEXT,
        )
        legs = _relaxed(atoms, monitor) if relaxes else _moved(atoms, monitor, kelvin, rng)
        try:
            for positions in legs:
                yield Sampled("explored", kelvin, at.numbers, positions)
        except (UncertaintyExceeded, RunawayError, StructureError):
            for found in _kept(file):
                yield Sampled("flagged", kelvin, at.numbers, found.positions)


def threshold(ensemble: SchNetEnsembleCalculator) -> float:
    """Return the deviation that one frame in ten exceeds: early ensembles differ as much on most frames."""
    return float(ensemble.calibration.threshold(0.1))


@functools.cache
def _calculators(entry: Path) -> tuple[SchNetCalculator, SchNetEnsembleCalculator]:
    """Calculators of a process, which compile and load once."""
    return SchNetCalculator(entry), SchNetEnsembleCalculator(entry)


def _moved(atoms: Atoms, monitor: UncertaintyMonitor, kelvin: float, rng: np.random.Generator) -> Iterator[np.ndarray]:
    thermalize_momenta(atoms, temperature_K=kelvin, rng=rng)
    dynamics = Langevin(atoms, units.fs, temperature_K=kelvin, friction=0.02 / units.fs, fixcm=False, rng=rng)
    dynamics.attach(monitor)
    for _ in range(2):
        dynamics.run(LEG)
        yield atoms.get_positions()


def _relaxed(atoms: Atoms, monitor: UncertaintyMonitor) -> Iterator[np.ndarray]:
    with BFGS(atoms, logfile=None) as optimizer:
        optimizer.attach(monitor)
        optimizer.run(fmax=0.02, steps=RELAXATION_STEPS)
    yield atoms.get_positions()


def _kept(file: Path) -> list[Atoms]:
    """Return the flagged frame, and the first of those that led to it."""
    frames = ase.io.read(file, ":") if file.exists() else []
    return [frames[0], frames[-1]] if len(frames) > 1 else frames
