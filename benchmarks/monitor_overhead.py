"""What an `UncertaintyMonitor` that looks at every step adds to a step of dynamics.

Velocity Verlet of each entry's molecule from 300 K with the ensemble on one thread, in turns without and with a monitor
of the default threshold. Printed is the median over rounds of each, and of the ratio within a round.

    python benchmarks/monitor_overhead.py rmd17-ethanol rmd17-aspirin
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click
import numpy as np
from _entries import calibrated
from _md_time import start
from _report import conditions, exit_on_error, table

from schnet_ase import SchNetEnsembleCalculator, UncertaintyMonitor
from schnet_ase.geometry.arrays import Floats
from schnet_ase.registry.card import Card


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entries", nargs=-1, required=True)
@click.option("--rounds", default=101, show_default=True, type=click.IntRange(1))
@click.option("--steps", default=100, show_default=True, type=click.IntRange(1), help="Of a round.")
@exit_on_error
def main(entries: tuple[str, ...], rounds: int, steps: int) -> None:
    rows = []
    for entry in entries:
        card, _ = calibrated(entry)
        with tempfile.TemporaryDirectory() as folder:
            times = measure(card, Path(folder), rounds, steps)
        without, watched = np.median(times, axis=0)
        low, middle, high = np.percentile(100.0 * (times[:, 1] / times[:, 0] - 1.0), (25, 50, 75))
        rows.append((card.name, f"{without:.4f}", f"{watched:.4f}", f"{middle:.1f} %", f"{low:.1f} to {high:.1f} %"))
    print(table(("entry", "ms/step", "with a monitor", "more", "middle half of the rounds"), rows))
    print(f"\n{conditions()}")


def measure(card: Card, folder: Path, rounds: int, steps: int) -> Floats:
    """(rounds, 2) milliseconds per step, without and with a monitor, of one dynamics that goes on."""
    dynamics = start(card.structure.atoms(), SchNetEnsembleCalculator(card.path, threads=1))
    monitor = UncertaintyMonitor(dynamics.atoms, file=folder / "flagged.extxyz", log=folder / "uncertainty.csv")
    dynamics.attach(monitor)
    observers = ([], dynamics.observers)
    times = np.empty((rounds, 2))
    for k, row in enumerate(times):
        for which in (k % 2, 1 - k % 2):
            dynamics.observers = observers[which]
            begin = time.perf_counter()
            dynamics.run(steps)
            row[which] = 1000.0 * (time.perf_counter() - begin) / steps
    return times


if __name__ == "__main__":
    main()
