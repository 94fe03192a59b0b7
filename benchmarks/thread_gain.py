"""What more threads gain: Velocity Verlet of water with one thread and with several, in turns.

The networks have the sizes of md_speed.py's F = 64, untrained: one, and five with their spread. A block is as long as
several neighbour lists; printed are the medians over rounds of the time per step, and of the ratio within a round.

    python benchmarks/thread_gain.py
    python benchmarks/thread_gain.py --side 2 --side 3 --side 4 --side 5
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import click
import numpy as np
import torch
from _report import conditions, exit_on_error, table
from _systems import TEMPERATURE, water
from _worker import CUTOFF, N_RBF, Dynamics
from ase.md.velocitydistribution import thermalize_momenta

from schnet_ase import SchNet, SchNetCalculator, SchNetConfig, SchNetEnsembleCalculator
from schnet_ase.geometry.arrays import Floats
from schnet_ase.output.progress import Progress

CONFIG = SchNetConfig(n_features=64, n_rbf=N_RBF, cutoff=CUTOFF, gamma=None, envelope="cosine")


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--side",
    "sides",
    default=[8],
    show_default=True,
    multiple=True,
    type=click.IntRange(2),
    help="Molecules along an edge of the box; may be given several times.",
)
@click.option("--threads", default=2, show_default=True, type=click.IntRange(2))
@click.option("--rounds", default=11, show_default=True, type=click.IntRange(1))
@click.option("--steps", default=93, show_default=True, type=click.IntRange(1), help="Of a block.")
@exit_on_error
def main(sides: tuple[int, ...], threads: int, rounds: int, steps: int) -> None:
    rows = []
    with Progress(2 * len(sides) * rounds, "threads", "round") as progress:
        for side, members in product(sides, (1, 5)):
            times = measure(side, members, (1, threads), rounds, steps, progress)
            one, several = np.median(times, axis=0)
            low, middle, high = np.percentile(times[:, 0] / times[:, 1], (25, 50, 75))
            columns = (f"{one:.4g}", f"{several:.4g}", f"{middle:.3g}", f"{low:.2f} to {high:.2f}")
            rows.append((3 * side**3, members, *columns))
    header = ("atoms", "members", "ms/step, 1 thread", f"{threads} threads", "gain", "middle half of the rounds")
    print(table(header, rows))
    print(f"\n{conditions()}")


def measure(side: int, members: int, threads: Sequence[int], rounds: int, steps: int, progress: Progress) -> Floats:
    """(rounds, len(threads)) milliseconds per step."""
    models = [network(seed) for seed in range(members)]
    runs = []
    for count in threads:
        rng = np.random.default_rng(0)
        atoms = water(side, rng)
        thermalize_momenta(atoms, temperature_K=TEMPERATURE, rng=rng)
        several = members > 1
        calculator = SchNetEnsembleCalculator if several else SchNetCalculator
        atoms.calc = calculator(models if several else models[0], engine="compiled", threads=count)
        runs.append(Dynamics(atoms))
        runs[-1].run(2)
    times = np.empty((rounds, len(threads)))
    for row in times:
        for k, dynamics in enumerate(runs):
            row[k] = 1000.0 * dynamics.run(steps) / steps
        progress.update()
    return times


def network(seed: int) -> SchNet:
    """One with so small an output that the atoms fly nearly straight."""
    torch.manual_seed(seed)
    model = SchNet(CONFIG)
    model.scale.fill_(1e-3)
    return model


if __name__ == "__main__":
    main()
