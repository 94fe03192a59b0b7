"""How near the compiled engine comes to what this machine can do.

    python benchmarks/floor.py

Counts the floating-point operations of one call for energy and forces of water, and the bytes that it has to move
through the caches; measures, in the same run and in one thread, how fast this machine multiplies matrices and copies
arrays of the size of the engine's working set; and prints which fraction of that floor the engine reaches. The floor of
a call is the longer of the two times: a perfect kernel does both at once.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import _systems
import click
import numpy as np
import torch

from schnet_ase import SchNet, SchNetConfig
from schnet_ase.geometry.neighbors import half_neighbor_list
from schnet_ase.geometry.system import geometry
from schnet_ase.inference.compiled import CompiledSchNet

BYTES = 4  # of a float32
SKIN = 1.0  # Å, as the calculators have it


class Work(NamedTuple):
    """What one call has to do."""

    flops: float
    bytes: float


def count(config: SchNetConfig, atoms: int, pairs: int) -> Work:
    """Operations and bytes of one member for `atoms` atoms and `pairs` pairs within the cutoff, each counted once.

    A pair and a feature cost, of additions and multiplications: the quintic 10, its slope 8 more, the two sums that
    the filter goes into 4, the product for the force 5. A matrix product of n by m costs an atom 2nm. Bytes are those
    of the filter's six coefficients, and of the second atom's features, read, and of its sums, read and written; the
    first atom's, and what lies between two dense layers, can stay in registers or in the nearest cache.
    """
    F, H, L = config.n_features, config.readout_features, config.n_interactions
    forward, backward, first_backward = 10 + 4, 18 + 4 + 5, 18 + 5
    on_pairs = pairs * F * (L * forward + (L - 1) * backward + first_backward)
    # Forward: B and C of each interaction, A of all but the first, which is a table; readout; and the same back.
    on_atoms = 2 * 2 * atoms * (F * F * (2 * L + L - 1) + F * H)
    # In vectors of F features: forward table 6, h 1, sums 2; backward also g 1; first backward no sums.
    vectors = L * 9 + (L - 1) * 10 + 8
    layers = atoms * F * 6 * (2 * L)  # h, g, x, sums and slopes go once in or out, forward and back
    return Work(on_pairs + on_atoms, BYTES * (pairs * F * vectors + layers))


def fastest(call: Callable[[], object], seconds: float = 1.5) -> float:
    """Shortest of the times that `call` takes, in s: that with the least of what else the machine does."""
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


@click.command()
@click.option("--features", default=64, show_default=True)
@click.option("--repeats", default=5, show_default=True, help="Rounds of machine, engine, machine, ...")
def main(features: int, repeats: int) -> None:
    """Print the fraction of this machine's floor that the compiled engine reaches."""
    torch.set_num_threads(1)
    config = SchNetConfig(n_features=features, n_rbf=32, cutoff=5.0, gamma=None, envelope="cosine")
    model = SchNet(config)
    square = torch.randn(1024, 1024)
    print(f"F = {features}, one member, one thread, float32; medians of {repeats} rounds")
    print("   atoms    pairs   Mflop     MB   multiply   copy (GB/s)   floor (ms)   engine (ms)   of the floor")
    for name in ("water-192", "water-1536"):
        system = geometry(_systems.make_system(name))
        listed = half_neighbor_list(system.positions, system.cell, system.pbc, config.cutoff + SKIN)
        within = half_neighbor_list(system.positions, system.cell, system.pbc, config.cutoff)
        work = count(config, len(system.numbers), len(within.first))
        engine = CompiledSchNet([model], "float32", threads=1)
        engine(system, listed)
        # Two blocks of features at a time: their part of a table, and h, g and sums of all atoms.
        size = 2 * 8 * BYTES * (6 * engine._shape.rows + 3 * len(system.numbers))
        source, target = np.ones(size // 8), np.empty(size // 8)
        rounds = []
        for _ in range(repeats):
            flops = 2 * 1024**3 / fastest(lambda: square @ square)
            copied = 2 * source.nbytes / fastest(lambda s=source, t=target: np.copyto(t, s))
            taken = fastest(lambda e=engine, s=system, p=listed: e(s, p))
            rounds.append((flops, copied, max(work.flops / flops, work.bytes / copied), taken))
        flops, copied, floor, taken = (median(column) for column in zip(*rounds, strict=True))
        share = median(r[2] / r[3] for r in rounds)
        print(
            f"{len(system.numbers):8d} {len(within.first):8d} {work.flops / 1e6:7.0f} {work.bytes / 1e6:6.0f} "
            f"{flops / 1e9:6.0f} Gflop/s {copied / 1e9:8.0f} {1e3 * floor:12.2f} {1e3 * taken:13.2f} {share:14.0%}"
        )


if __name__ == "__main__":
    main()
