"""Accuracy that an ensemble needs for stable dynamics: relative force errors against the duration of runs.

The molecule is acetamide, labelled by GFN2-xTB at 400 K. Ensembles are trained on the same frames for more and more
steps; each then runs Langevin dynamics from several seeds, without a monitor. A run is broken if the nearest neighbour
of an atom is farther than 1.8 Å away or the temperature is above 1,500 K. Needs `pip install schnet_ase[learn]`; takes
ten minutes on one core.

    python benchmarks/learn_fitness.py --steps 200 --steps 600 --steps 1800
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from _report import conditions, exit_on_error, table
from ase import Atoms, units
from ase.build import molecule
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from new_molecule import label

from schnet_ase import SchNetConfig, SchNetEnsembleCalculator
from schnet_ase.errors import StructureError
from schnet_ase.learn import LearnConfig, ReferenceConfig
from schnet_ase.learn.generation import train_generation
from schnet_ase.learn.labels import split_labels
from schnet_ase.training import TrainingConfig

KELVIN = 400.0
FRAMES = 200
PICOSECONDS = 5.0
BROKEN_DISTANCE = 1.8
"""Distance in Å to the nearest neighbour above which a run is broken."""
BROKEN_TEMPERATURE = 1500.0
"""Temperature in K above which a run is broken."""
HEADER = ("steps", "force MAE, meV/Å", "of the mean component", "threshold, eV/Å", "runs that held", "median time, ps")


def time_held(ensemble: Path, start: Atoms, seed: int) -> float:
    """Return the time in ps until a run is broken; at most `PICOSECONDS`."""
    rng = np.random.default_rng(seed)
    atoms = Atoms(start.numbers, start.positions, calculator=SchNetEnsembleCalculator(ensemble))
    thermalize_momenta(atoms, temperature_K=KELVIN, rng=rng)
    run = Langevin(atoms, 0.5 * units.fs, temperature_K=KELVIN, friction=0.01 / units.fs, fixcm=False, rng=rng)
    while run.get_time() < 1000.0 * PICOSECONDS * units.fs:
        try:
            run.run(20)
        except StructureError:
            break
        distances = atoms.get_all_distances() + 99.0 * np.eye(len(atoms))
        apart = not distances.min(axis=1).max() <= BROKEN_DISTANCE
        if apart or not atoms.get_temperature() <= BROKEN_TEMPERATURE:
            break
    return float(run.get_time() / (1000.0 * units.fs))


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--steps", default=(200, 600, 1800), show_default=True, multiple=True, type=click.IntRange(1))
@click.option("--seeds", default=6, show_default=True, type=click.IntRange(1))
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/learn-fitness"), show_default=True)
@exit_on_error
def main(steps: tuple[int, ...], seeds: int, runs: Path) -> None:
    runs.mkdir(parents=True, exist_ok=True)
    labels = runs / "labels.extxyz"
    if not labels.exists():
        label(molecule("CH3CONH2"), FRAMES, 0, labels, KELVIN)
    frames = read(labels, ":")
    usual = float(np.abs([frame.get_forces() for frame in frames]).mean())
    rows = []
    for n in steps:
        config = LearnConfig(
            name="acetamide",
            start=str(labels),
            reference=ReferenceConfig("tblite.ase.TBLite"),
            model=SchNetConfig(n_features=32, n_interactions=2, n_rbf=16, cutoff=5.0, gamma=None, envelope="cosine"),
            training=TrainingConfig(steps=n, validate_every=max(1, n // 4), ema=0.99),
        )
        split = split_labels(len(frames), config.folds, config.seed)
        trained = train_generation(config, 0, split, labels, runs / f"{n}-steps", 1, lambda what, done, total: None)
        mae = trained.validation()[1]
        held = [time_held(trained.card.path, frames[k], k) for k in range(seeds)]
        whole = f"{sum(time >= PICOSECONDS for time in held)} of {seeds}"
        errors = f"{1000 * mae:.0f}", f"{100 * mae / usual:.0f} %", f"{trained.thresholds[0]:.2f}"
        rows.append((f"{n:,}", *errors, whole, f"{np.median(held):.2f}"))
    print(f"a mean force component is {1000 * usual:.0f} meV/Å\n\n{table(HEADER, rows)}\n\n{conditions()}")


if __name__ == "__main__":
    main()
