"""Cost of the repulsion `prior = "zbl"` in the compiled kernel, from calls with and without it in turns.

The networks have the preset ``md``, are untrained and run on one thread: one, and five in one call. The atoms are
rattled molecules and water. Printed are the medians over rounds of a call's processor time and of the ratio within a
round, and the time of `dispersion = "pbe"`.

    python benchmarks/prior_time.py
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import product

import click
import numpy as np
import torch
from _report import conditions, exit_on_error, table
from _systems import MOLECULES, make_system

from schnet_ase import SchNet, SchNetConfig
from schnet_ase.engine import compiled_half_list
from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.neighbors import HalfNeighbors
from schnet_ase.geometry.system import geometry
from schnet_ase.inference.compiled import CompiledSchNet
from schnet_ase.inference.networks import FixedNetworks
from schnet_ase.priors.dispersion import Dispersion

SYSTEMS = (*MOLECULES, "water-192")
SECONDS_A_TURN = 0.002
PRIORS = (None, "zbl")


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=1001, show_default=True, type=click.IntRange(1))
@exit_on_error
def main(rounds: int) -> None:
    rows = []
    for system, members in product(SYSTEMS, (1, 5)):
        times = measure(system, members, rounds)
        without, with_prior = np.median(times, axis=0)
        low, middle, high = np.percentile(100.0 * (times[:, 1] / times[:, 0] - 1.0), (25, 50, 75))
        more = (f"{middle:+.2f} %", f"{low:+.1f} to {high:+.1f} %")
        rows.append((system, members, f"{without:.1f}", f"{with_prior:.1f}", *more))
    print(table(("atoms", "networks", "µs a call", "with zbl", "more", "middle half of the rounds"), rows))
    print()
    print(table(("atoms", "ms a call of D3(BJ)"), [(system, f"{dispersion_time(system):.3g}") for system in SYSTEMS]))
    print(f"\n{conditions()}")


def measure(system: str, members: int, rounds: int) -> Floats:
    """Return the times (rounds, 2) of a call in microseconds, without and with the prior."""
    atoms = geometry(make_system(system))
    config = SchNetConfig.md()
    pairs = compiled_half_list(atoms.positions, atoms.cell, atoms.pbc, config.cutoff + 1.0)
    kernels = []
    for prior in PRIORS:
        torch.manual_seed(0)
        models = [SchNet(replace(config, prior=prior)) for _ in range(members)]
        kernels.append(CompiledSchNet(FixedNetworks(models), "float32", threads=1))
        kernels[-1](atoms, pairs)  # compiles
    begin = time.perf_counter()
    kernels[0](atoms, pairs)
    calls = max(1, int(SECONDS_A_TURN / (time.perf_counter() - begin)))
    times = np.empty((rounds, len(kernels)))
    for k, row in enumerate(times):
        for which in (k % 2, 1 - k % 2):
            begin = time.thread_time()  # processor time, which other programs disturb less
            for _ in range(calls):
                kernels[which](atoms, pairs)
            row[which] = 1e6 * (time.thread_time() - begin) / calls
    return times


def dispersion_time(system: str, calls: int = 5) -> float:
    """Return the time in milliseconds of a call of the term alone."""
    atoms, term, times = geometry(make_system(system)), Dispersion("pbe"), []
    nothing = HalfNeighbors(*(np.zeros(shape, dtype=np.int64) for shape in (0, 0, (0, 3))))
    for _ in range(calls):
        begin = time.perf_counter()
        term(atoms, nothing)
        times.append(1e3 * (time.perf_counter() - begin))
    return float(np.median(times))


if __name__ == "__main__":
    main()
