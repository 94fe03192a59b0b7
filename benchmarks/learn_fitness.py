"""How good an ensemble must be before its dynamics holds together: force errors, relative to the forces, against runs.

Acetamide, labelled by GFN2-xTB at 400 K. Ensembles are trained on the same frames for more and more steps; each then
runs Langevin dynamics from six seeds, without a monitor. A run has broken where an atom's nearest other is farther than
1.8 Å away or the temperature is above 1,500 K. Needs `pip install schnet_ase[learn]`; ten minutes on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta

from schnet_ase import SchNetConfig, SchNetEnsembleCalculator
from schnet_ase.errors import StructureError
from schnet_ase.learn import LearnConfig, ReferenceConfig
from schnet_ase.learn.generation import train_generation
from schnet_ase.learn.labels import split_labels
from schnet_ase.training import TrainingConfig

TEMPERATURE = 400.0
"""K."""
BROKEN_DISTANCE = 1.8
"""Å."""
BROKEN_TEMPERATURE = 1500.0
"""K."""


def dynamics(atoms: Atoms, seed: int, timestep: float, friction: float) -> Langevin:
    """Langevin dynamics from Maxwell-Boltzmann velocities; the time step in fs, the friction in 1/ps."""
    rng = np.random.default_rng(seed)
    thermalize_momenta(atoms, temperature_K=TEMPERATURE, rng=rng)
    friction = friction / (1000.0 * units.fs)
    return Langevin(atoms, timestep * units.fs, temperature_K=TEMPERATURE, friction=friction, fixcm=False, rng=rng)


def label_frames(path: Path, n: int) -> None:
    """Frames of xTB dynamics, 20 fs apart, after 300 fs."""
    from tblite.ase import TBLite

    atoms = molecule("CH3CONH2")
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    run = dynamics(atoms, 0, 1.0, 20.0)
    run.run(300)
    frames = []
    for _ in range(n):
        run.run(20)
        frame = atoms.copy()
        frame.calc = SinglePointCalculator(frame, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
        frames.append(frame)
    write(path, frames)


def time_held(ensemble: Path, start: Atoms, seed: int, picoseconds: float) -> float:
    """How long a run holds together, ps."""
    atoms = Atoms(start.numbers, start.positions, calculator=SchNetEnsembleCalculator(ensemble))
    run = dynamics(atoms, seed, 0.5, 10.0)
    while run.get_time() < 1000.0 * picoseconds * units.fs:
        try:
            run.run(20)
        except StructureError:
            break
        distances = atoms.get_all_distances() + 99.0 * np.eye(len(atoms))
        apart = not distances.min(axis=1).max() <= BROKEN_DISTANCE
        if apart or not atoms.get_temperature() <= BROKEN_TEMPERATURE:
            break
    return float(run.get_time() / (1000.0 * units.fs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[200, 600, 1800])
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--picoseconds", type=float, default=5.0)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--output", type=Path, default=Path("learn-fitness"))
    arguments = parser.parse_args()

    arguments.output.mkdir(parents=True, exist_ok=True)
    labels = arguments.output / "labels.extxyz"
    if not labels.exists():
        label_frames(labels, arguments.frames)
    frames = read(labels, ":")
    forces = np.concatenate([frame.get_forces() for frame in frames])
    size = float(np.abs(forces).mean())
    atom = float(np.linalg.norm(forces, axis=1).mean())
    print(f"mean force: component {1000 * size:.0f} meV/Å, on an atom {atom:.2f} eV/Å")
    print("steps | force MAE, meV/Å | of the mean component | threshold, eV/Å | runs that held | median time, ps")
    for steps in arguments.steps:
        config = LearnConfig(
            name="acetamide",
            start=str(labels),
            reference=ReferenceConfig("tblite.ase.TBLite"),
            model=SchNetConfig(n_features=32, n_interactions=2, n_rbf=16, cutoff=5.0, gamma=None, envelope="cosine"),
            training=TrainingConfig(steps=steps, validate_every=max(1, steps // 4), ema=0.99),
        )
        split = split_labels(len(frames), config.folds, config.seed)
        folder = arguments.output / f"{steps}-steps"
        trained = train_generation(config, 0, split, labels, folder, 1, lambda what, done, total: None)
        mae = trained.validation()[1]
        held = [time_held(trained.card.path, frames[k], k, arguments.picoseconds) for k in range(arguments.seeds)]
        whole = sum(time >= arguments.picoseconds for time in held)
        print(
            f"{steps} | {1000 * mae:.0f} | {100 * mae / size:.0f} % | {trained.thresholds[0]:.2f} | "
            f"{whole} of {len(held)} | {np.median(held):.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
