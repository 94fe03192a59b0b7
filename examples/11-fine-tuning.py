"""
Fine-tuning on your own frames
==============================

The entry ``organic`` knows many molecules at the level of GFN2-xTB. This tutorial makes it better for one molecule at
another level, with 100 labelled frames, and compares it with an ensemble that begins from random weights::

    python 11-fine-tuning.py frames.extxyz

``frames.extxyz`` holds your labels: energies and forces by the method that you trust, of 150 frames or more. Without a
file, the script makes frames of alanine dipeptide with GFN1-xTB, which stands for that method here
(``pip install schnet_ase[learn,organic]``), and keeps them as ``11-frames.extxyz``. It writes ``11-fine-tuning.png``
and the two ensembles ``11-models/from-organic`` and ``11-models/from-random``. On the command line, ``schnet-ase
crossval CONFIG.toml --initial organic`` does the same.

The picture shows the force error of ``organic`` as it is and of both ensembles on frames that none of them has seen,
and on the right the error of each force against its ``forces_uncertainty``: 90 % of the points should lie below the
line.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.optimize import BFGS
from matplotlib.ticker import NullFormatter

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator
from schnet_ase.registry.loading import locate_members
from schnet_ase.simulation.structures import from_smiles
from schnet_ase.training import DataConfig, RunConfig, TrainingConfig, crossval


def make_frames(start: str, n_frames: int) -> Path:
    """Let the start move alanine dipeptide at 500 K, and label a frame every 20 fs; return the file."""
    from tblite.ase import TBLite

    rng = np.random.default_rng(0)
    atoms = from_smiles("CC(=O)NC(C)C(=O)NC")
    atoms.calc = SchNetCalculator(start)
    BFGS(atoms, logfile=None).run(fmax=0.05, steps=200)
    thermalize_momenta(atoms, temperature_K=500, rng=rng)
    dynamics = Langevin(atoms, units.fs, temperature_K=500, friction=0.02 / units.fs, fixcm=False, rng=rng)
    frames = []
    for _ in range(n_frames):
        dynamics.run(20)
        frame = Atoms(atoms.numbers, atoms.positions, calculator=TBLite(method="GFN1-xTB", verbosity=0))
        frame.calc = SinglePointCalculator(frame, energy=frame.get_potential_energy(), forces=frame.get_forces())
        frames.append(frame)
    write("11-frames.extxyz", frames)
    return Path("11-frames.extxyz")


def train(name: str, start: str, initial: str | None, steps: int) -> Path:
    """Train five members, unless an earlier run of this script did; return the folder of the entry."""
    entry = Path("11-models") / name
    if not entry.exists():
        crossval(
            RunConfig(
                name=name,
                data=DataConfig(file="11-train.extxyz", calibration=50, description="alanine dipeptide at 500 K"),
                model=locate_members(start)[0].model.config,
                training=TrainingConfig(steps=steps, validate_every=max(1, steps // 10)),
            ),
            folder=Path("11-runs") / name,
            models=entry.parent,
            initial=initial,
        )
    return entry


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("frames", nargs="?", type=Path)
    parser.add_argument("--start", default="organic", help="entry whose weights the training starts from")
    parser.add_argument("--steps", type=int, default=1000, help="of each member's training")
    parser.add_argument("--training", type=int, default=100, help="frames for the five members")
    arguments = parser.parse_args()
    start, name_of_start = arguments.start, Path(arguments.start).name

    frames = read(arguments.frames or make_frames(start, arguments.training + 150), ":")
    order = np.random.default_rng(0).permutation(len(frames))
    test = [frames[k] for k in order[:100]]
    write("11-train.extxyz", [frames[k] for k in order[100 : 150 + arguments.training]])

    # Two cross-validations on the same frames: one starts from the five members of `organic`, whose reference energies
    # are refitted to these labels, the other from random weights. Fifty frames are kept for the calibration.
    ensembles = {
        f"{name_of_start}, as it is": SchNetEnsembleCalculator(start),
        "from random weights": SchNetEnsembleCalculator(train("from-random", start, None, arguments.steps)),
        f"from {name_of_start}": SchNetEnsembleCalculator(train("from-organic", start, start, arguments.steps)),
    }

    # Test all three on the same hundred frames.
    reference = np.concatenate([frame.get_forces() for frame in test])
    maes = []
    for name, calculator in ensembles.items():
        predicted, half_width = [], []
        for frame in test:
            atoms = Atoms(frame.numbers, frame.positions, calculator=calculator)
            predicted.append(atoms.get_forces())
            half_width.append(calculator.results["forces_uncertainty"])
        errors, half_width = np.concatenate(predicted) - reference, np.concatenate(half_width)
        maes.append(1000.0 * np.abs(errors).mean())
        error = np.linalg.norm(errors, axis=1)
        inside = np.mean(error <= half_width)
        print(f"{name}: force MAE {maes[-1]:.1f} meV/Å; {inside:.0%} of the forces within their half-widths")

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained")
    bars = left.bar([name.replace(" ", "\n", 1) for name in ensembles], maes, color=["0.6", "tab:orange", "tab:blue"])
    left.bar_label(bars, fmt="%.0f")
    left.set(ylabel="force MAE (meV/Å)", title=f"{len(test)} test frames; {arguments.training} to train on")
    right.loglog(half_width, error, ".", ms=3, color="tab:purple")
    right.plot([half_width.min(), half_width.max()], [half_width.min(), half_width.max()], color="0.5", lw=0.8)
    right.set(xlabel="forces_uncertainty (eV/Å)", ylabel="error of the force on an atom (eV/Å)")
    right.xaxis.set_minor_formatter(NullFormatter())
    right.set_title(f"from {name_of_start}: {inside:.0%} below the line")
    figure.savefig("11-fine-tuning.png", dpi=150)


if __name__ == "__main__":
    main()
