"""
Learning on the fly
===================

This tutorial learns ethanol on the fly with GFN2-xTB, from 50 labels at 300 K to a potential for 500 K.

The ensemble runs at 500 K, stops where it is uncertain, asks xTB for labels, trains on them and resumes. Beside it,
another ensemble trains on as many labels drawn at random from xTB dynamics at 500 K. The script writes
``05-learn-on-the-fly.png`` and the folder ``05-learn-on-the-fly``. It takes ten minutes on two cores and needs
``pip install schnet_ase[learn]``. It then draws this picture:

.. image:: /learning.png
   :alt: Force error at 500 K against the number of labels, flagged and random

The second picture and the output below come from a much shorter run, which only shows that the script works.
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from tblite.ase import TBLite

from schnet_ase import SchNetConfig, SchNetEnsembleCalculator
from schnet_ase.learn import DynamicsConfig, FlagConfig, LearnConfig, ReferenceConfig, learn
from schnet_ase.learn.audit import Generation, describe, read_audit
from schnet_ase.learn.generation import train_generation
from schnet_ase.learn.labels import LabelStore, split_labels
from schnet_ase.learn.reference import Label
from schnet_ase.training import TrainingConfig

# sphinx_gallery_thumbnail_path = "learning.png"
FOLDER = Path("05-learn-on-the-fly")


def xtb_dynamics(temperature: float, n_frames: int, spacing: int, seed: int) -> list[Atoms]:
    """Return frames of Langevin dynamics with GFN2-xTB, `spacing` steps of 1 fs apart, after 300 steps."""
    rng = np.random.default_rng(seed)
    atoms = molecule("CH3CH2OH")
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    thermalize_momenta(atoms, temperature_K=temperature, rng=rng)
    dynamics = Langevin(atoms, units.fs, temperature_K=temperature, friction=0.05 / units.fs, fixcm=False, rng=rng)
    dynamics.run(300)
    frames = []
    for _ in range(n_frames):
        dynamics.run(spacing)
        frame = atoms.copy()
        frame.calc = SinglePointCalculator(frame, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
        frames.append(frame)
    return frames


def force_mae(ensemble: Path, frames: list[Atoms]) -> float:
    """Return the force MAE of the mean over members, meV/Å."""
    calculator = SchNetEnsembleCalculator(ensemble)
    errors = []
    for frame in frames:
        atoms = frame.copy()
        atoms.calc = calculator
        errors.append(np.abs(atoms.get_forces() - frame.get_forces()).mean())
    return 1000.0 * float(np.mean(errors))


def random_sampling(config: LearnConfig, sizes: list[int], frames: list[Atoms]) -> None:
    """Train ensembles on as many labels as the learned ones had, drawn without regard to what the ensemble knows."""
    folder = FOLDER / "random"
    if not folder.exists():
        shutil.copytree(FOLDER / "flagged" / "generation-000", folder / "generation-000")
    store = LabelStore(folder / "labels.extxyz")
    for number, size in enumerate(sizes):
        while len(store) < size:
            frame = frames[len(store)]
            store.append(frame, Label(frame.get_potential_energy(), frame.get_forces()), "random")
        split = split_labels(size, config.folds, config.seed)
        train_generation(config, number, split, store.path, folder, None, lambda what, done, total: None)
        print(f"random: {size} labels")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--labels", type=int, default=125, help="total number")
    parser.add_argument("--steps", type=int, default=1500, help="of the first training")
    parser.add_argument("--test", type=int, default=200, help="frames")
    arguments = parser.parse_args()

    # Label the first frames at 300 K, and random and test frames at 500 K.
    FOLDER.mkdir(exist_ok=True)
    start, drawn, test = (FOLDER / f"{name}.extxyz" for name in ("start", "random", "test"))
    if not test.exists():
        print("running GFN2-xTB dynamics for the first labels, the random ones and the test")
        write(start, xtb_dynamics(300, 50, 10, seed=0))
        write(drawn, xtb_dynamics(500, arguments.labels - 50, 50, seed=1))
        write(test, xtb_dynamics(500, arguments.test, 50, seed=2))

    # Learn from 50 labels on: dynamics at 500 K that asks for labels where the members disagree.
    rates = {"optimizer": "adamw", "learning_rate": 3e-3, "ema": 0.99}
    config = LearnConfig(
        name="ethanol-xtb",
        start=str(start),
        reference=ReferenceConfig("tblite.ase.TBLite", {"method": "GFN2-xTB", "verbosity": 0}, "GFN2-xTB"),
        dynamics=DynamicsConfig(temperature=500, quiet=10),
        flags=FlagConfig(threshold=(0.2, 2.0), labels=15, explore=2000),
        model=replace(  # smaller than the preset, with the functions that the preset had when this was measured
            SchNetConfig.md(), n_interactions=3, activation="ssp", radial="exponential", n_rbf=16, cutoff=5.0
        ),
        training=TrainingConfig(steps=arguments.steps, validate_every=100, warmup=1000, **rates),
        retraining=TrainingConfig(steps=max(1, arguments.steps // 3), validate_every=100, warmup=100, **rates),
        max_labels=arguments.labels,
    )
    result = learn(config, FOLDER / "flagged", report=lambda event: print(describe(event)))
    print(f"finished after {result.end.reason}")

    # Train the other ensemble on as many labels drawn at random.
    generations = [event for event in read_audit(result.audit) if isinstance(event, Generation)]
    sizes = [g.labels for g in generations]
    random_sampling(config, sizes, [*read(start, ":"), *read(drawn, ":")])

    # Compare both on the test frames.
    frames = read(test, ":")
    figure, axes = plt.subplots(figsize=(5.5, 4), layout="constrained")
    for kind, label, style in (("random", "at random", "s--"), ("flagged", "where the ensemble does not know", "o-")):
        maes = [force_mae(FOLDER / kind / f"generation-{g:03d}" / config.name, frames) for g in range(len(sizes))]
        axes.plot(sizes, maes, style, label=label)
        print(f"labels {label}: " + ", ".join(f"{n}: {mae:.1f} meV/Å" for n, mae in zip(sizes, maes, strict=True)))
    axes.set(xlabel="labels", ylabel="force MAE at 500 K (meV/Å)", title="ethanol, GFN2-xTB")
    axes.legend(frameon=False)
    figure.savefig("05-learn-on-the-fly.png", dpi=150)


if __name__ == "__main__":
    main()
