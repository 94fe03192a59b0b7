"""Ethanol learned on the fly with GFN2-xTB: from 50 labels at 300 K to a potential for 500 K.

The ensemble runs at 500 K, stops where it does not know, asks xTB, learns and goes on. Beside it, as many labels drawn
at random from xTB dynamics at 500 K, trained in the same way. Writes `05-learn-on-the-fly.png` and the folder
`05-learn-on-the-fly` here. Ten minutes on two cores; needs `pip install schnet_ase[learn]`.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
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
from schnet_ase.training import TrainingConfig

FOLDER = Path("05-learn-on-the-fly")


def xtb_dynamics(temperature: float, n_frames: int, spacing: int, seed: int) -> list[Atoms]:
    """Frames of Langevin dynamics with GFN2-xTB, `spacing` steps of 1 fs apart, after a start of 300."""
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
    """Of the mean over members, meV/Å."""
    calculator = SchNetEnsembleCalculator(ensemble)
    errors = []
    for frame in frames:
        atoms = frame.copy()
        atoms.calc = calculator
        errors.append(np.abs(atoms.get_forces() - frame.get_forces()).mean())
    return 1000.0 * float(np.mean(errors))


def curve(folder: Path, name: str, frames: list[Atoms]) -> list[tuple[int, float]]:
    """Labels and force MAE on `frames` of every generation in a folder."""
    generations = [event for event in read_audit(folder / "audit.jsonl") if isinstance(event, Generation)]
    return [(g.labels, force_mae(folder / f"generation-{g.generation:03d}" / name, frames)) for g in generations]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, default=120, help="in all")
    parser.add_argument("--steps", type=int, default=4000, help="of the first training")
    arguments = parser.parse_args()

    FOLDER.mkdir(exist_ok=True)
    start, random, test = FOLDER / "start.extxyz", FOLDER / "random.extxyz", FOLDER / "test.extxyz"
    if not test.exists():
        print("GFN2-xTB dynamics for the first labels, the random ones and the test")
        write(start, xtb_dynamics(300, 50, 10, seed=0))
        drawn = xtb_dynamics(500, arguments.labels - 50, 50, seed=1)
        write(random, drawn)
        write(test, xtb_dynamics(500, 200, 50, seed=2))

    config = LearnConfig(
        name="ethanol-xtb",
        start=str(start),
        reference=ReferenceConfig("tblite.ase.TBLite", {"method": "GFN2-xTB", "verbosity": 0}, "GFN2-xTB"),
        dynamics=DynamicsConfig(temperature=500, quiet=20),
        flags=FlagConfig(threshold=0.15, labels=10),
        model=replace(SchNetConfig.md(), n_features=64),
        training=TrainingConfig(steps=arguments.steps, validate_every=200, learning_rate=3e-3, clip=0.5),
        max_labels=arguments.labels,
    )
    result = learn(config, FOLDER / "flagged", report=lambda event: print(describe(event)))
    print(result.end.reason)
    frames = read(test, ":")
    print(curve(FOLDER / "flagged", config.name, frames))


if __name__ == "__main__":
    main()
