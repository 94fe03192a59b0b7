"""What it costs to watch a run: one network that moves the atoms, and an ensemble that looks every so many steps.

Velocity Verlet by ASE of each entry's molecule from 300 K, on one thread, in turns: by its best member unwatched; by
its student (the best member where it has none) under an `UncertaintyMonitor` of all members that look every --interval
steps; and by the members' mean with a look at every step. Times are of the processor, medians over rounds; ratios are
medians of those within a round.

    python benchmarks/watch_time.py rmd17-ethanol rmd17-aspirin
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click
import numpy as np
from _report import conditions, exit_on_error, table
from ase import units
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator, UncertaintyMonitor
from schnet_ase.geometry.arrays import Floats
from schnet_ase.registry.card import Card
from schnet_ase.registry.lookup import get_card

HEADER = (
    "entry",
    "member (ms/step)",
    "watched",
    "ensemble, every step",
    "watched / member",
    "middle half of the rounds",
    "ensemble / watched",
)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entries", nargs=-1, required=True)
@click.option("--interval", default=10, show_default=True, type=click.IntRange(1), help="Steps between looks.")
@click.option("--rounds", default=41, show_default=True, type=click.IntRange(1))
@click.option("--steps", default=100, show_default=True, type=click.IntRange(1), help="Of a round.")
@exit_on_error
def main(entries: tuple[str, ...], interval: int, rounds: int, steps: int) -> None:
    rows = []
    for entry in entries:
        with tempfile.TemporaryDirectory() as folder:
            times = measure(get_card(entry), Path(folder), interval, rounds, steps)
        member, watched, ensemble = np.median(times, axis=0)
        low, middle, high = np.percentile(times[:, 1] / times[:, 0], (25, 50, 75))
        gain = np.median(times[:, 2] / times[:, 1])
        times_ = (f"{member:.4f}", f"{watched:.4f}", f"{ensemble:.4f}")
        rows.append((entry, *times_, f"{middle:.2f}", f"{low:.2f} to {high:.2f}", f"{gain:.2f}"))
    print(table(HEADER, rows))
    print(f"\n{conditions()}")


def measure(card: Card, folder: Path, interval: int, rounds: int, steps: int) -> Floats:
    """(rounds, 3) milliseconds per step: a member unwatched, watched at intervals, the ensemble at every step."""
    watching = SchNetEnsembleCalculator(card.path, threads=1)
    runs = [
        start(card, SchNetCalculator(card.path / card.best.file, threads=1)),
        start(card, SchNetCalculator(card.path, threads=1)),
        start(card, SchNetEnsembleCalculator(card.path, threads=1)),
    ]
    for name, dynamics, looks, steps_between in (("a", runs[1], watching, interval), ("b", runs[2], None, 1)):
        files = {"file": folder / f"{name}.extxyz", "log": folder / f"{name}.csv"}
        dynamics.attach(UncertaintyMonitor(dynamics.atoms, ensemble=looks, interval=steps_between, **files))
        dynamics.run(steps)
    times = np.empty((rounds, len(runs)))
    for k, row in enumerate(times):
        for which in np.roll(range(len(runs)), k):
            begin = time.thread_time()
            runs[which].run(steps)
            row[which] = 1000.0 * (time.thread_time() - begin) / steps
    return times


def start(card: Card, calculator: SchNetCalculator | SchNetEnsembleCalculator) -> VelocityVerlet:
    """Dynamics from 300 K, the engine compiled."""
    atoms = card.structure.atoms()
    atoms.calc = calculator
    thermalize_momenta(atoms, temperature_K=300.0, rng=np.random.default_rng(0))
    Stationary(atoms)
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    dynamics.run(20)
    return dynamics


if __name__ == "__main__":
    main()
