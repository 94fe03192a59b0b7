"""
Training an ensemble of your own
================================

This tutorial trains an ensemble by cross-validation on labelled frames, and measures it on frames that it has never
seen::

    python 04-train-your-own.py frames.extxyz

Without a file, it makes frames of methanol with GFN2-xTB (``pip install schnet_ase[learn]``) and keeps them as
``04-frames.extxyz``. It writes ``04-train-your-own.png``, the training frames ``04-train.extxyz``, the run
``04-run`` and the ensemble ``04-models/my-molecule`` into the current folder. After a kill, the same command
resumes. On the command line, ``schnet-ase crossval 04-train-your-own.toml`` does the same.

The picture shows the predicted forces against the reference on the left, and on the right the error of each force
against its ``forces_uncertainty``: 90 % of the points should lie below the line.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase import units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta

from schnet_ase import SchNetEnsembleCalculator
from schnet_ase.training import DataConfig, RunConfig, TrainingConfig, crossval


def make_frames(n_frames: int) -> Path:
    """Label methanol at 500 K with GFN2-xTB, a frame every 10 fs; return the file."""
    from tblite.ase import TBLite

    rng = np.random.default_rng(0)
    atoms = molecule("CH3OH")
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    thermalize_momenta(atoms, temperature_K=500, rng=rng)
    dynamics = Langevin(atoms, units.fs, temperature_K=500, friction=0.02 / units.fs, fixcm=False, rng=rng)
    frames = []
    for _ in range(n_frames):
        dynamics.run(10)
        frame = atoms.copy()
        frame.calc = SinglePointCalculator(frame, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
        frames.append(frame)
    write("04-frames.extxyz", frames)
    return Path("04-frames.extxyz")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("frames", nargs="?", type=Path)
    parser.add_argument("--steps", type=int, default=3000, help="of each member's training")
    arguments = parser.parse_args()

    # Keep every fifth frame for the test; train and calibrate on the others.
    frames = read(arguments.frames or make_frames(300), ":")
    test = frames[::5]
    write("04-train.extxyz", [frame for index, frame in enumerate(frames) if index % 5])

    # Train five members by cross-validation and calibrate the ensemble.
    entry = Path("04-models/my-molecule")
    if not entry.exists():
        crossval(
            RunConfig(
                name=entry.name,
                data=DataConfig(file="04-train.extxyz", calibration=50, description="my molecule"),
                training=TrainingConfig(steps=arguments.steps),
            ),
            folder=Path("04-run"),
            models=entry.parent,
            report=lambda fold: (
                fold.row and print(f"fold {fold.fold}, step {fold.step}: {fold.row.errors.force_mae:.4f} eV/Å")
            ),
        )

    # Measure the ensemble on the test frames, which no member has seen.
    ensemble = SchNetEnsembleCalculator(entry)
    reference, predicted, error, half_width = [], [], [], []
    for frame in test:
        atoms = frame.copy()
        atoms.calc = ensemble
        reference.append(frame.get_forces())
        predicted.append(atoms.get_forces())
        error.append(np.linalg.norm(predicted[-1] - reference[-1], axis=1))
        half_width.append(ensemble.results["forces_uncertainty"])
    reference, predicted, error, half_width = map(np.concatenate, (reference, predicted, error, half_width))
    mae = 1000.0 * np.abs(predicted - reference).mean()
    coverage = np.mean(error <= half_width)
    print(f"{len(test)} test frames: force MAE {mae:.1f} meV/Å")
    print(f"{coverage:.0%} of the force errors are within forces_uncertainty; 90 % are expected")

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    left.plot(reference.ravel(), predicted.ravel(), ".", ms=2, color="tab:blue")
    left.axline((0, 0), slope=1, color="0.5", lw=0.8)
    left.set(xlabel="force, reference (eV/Å)", ylabel="force, ensemble (eV/Å)", title=f"MAE {mae:.1f} meV/Å")
    right.loglog(half_width, error, ".", ms=3, color="tab:purple")
    right.plot([half_width.min(), half_width.max()], [half_width.min(), half_width.max()], color="0.5", lw=0.8)
    right.set(xlabel="forces_uncertainty (eV/Å)", ylabel="error of the force on an atom (eV/Å)")
    right.set_title(f"{coverage:.0%} below the line, 90 % expected")
    figure.savefig("04-train-your-own.png", dpi=150)


if __name__ == "__main__":
    main()
