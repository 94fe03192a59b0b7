"""How long a neighbour list of water takes: matscipy's search, and the compiled engine's own, in turns.

python benchmarks/neighbor_lists.py
"""

import time
from collections.abc import Callable
from statistics import median

import _systems
import click
from _report import conditions, exit_on_error, table

from schnet_ase.engine import compiled_half_list
from schnet_ase.errors import SchNetError
from schnet_ase.geometry.neighbors import HalfNeighbors, half_neighbor_list
from schnet_ase.geometry.system import Geometry, geometry

REACH = 6.0  # Å: a cutoff of 5 Å and a skin, as in md_speed.py
HEADER = ("system", "pairs", "matscipy (ms)", "compiled (ms)", "times faster")
SEARCHES = (half_neighbor_list, compiled_half_list)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=15, show_default=True, type=click.IntRange(3), help="Lists of each search.")
@exit_on_error
def main(rounds: int) -> None:
    rows = []
    for name in _systems.WATER:
        system = geometry(_systems.make_system(name))
        lists = [make(search, system)[0] for search in SEARCHES]  # the first call compiles
        if len(lists[0].first) != len(lists[1].first):
            raise SchNetError(f"{name}: {len(lists[0].first)} pairs by matscipy, {len(lists[1].first)} by the engine")
        times = [[make(search, system)[1] for search in SEARCHES] for _ in range(rounds)]
        theirs, ours = (1000.0 * median(column) for column in zip(*times, strict=True))
        rows.append((name, str(len(lists[0].first)), f"{theirs:.3g}", f"{ours:.3g}", f"{theirs / ours:.1f}"))
    print(table(HEADER, rows))
    print("\n" + conditions())


def make(search: Callable[..., HalfNeighbors], system: Geometry) -> tuple[HalfNeighbors, float]:
    """A list, and the seconds that it took."""
    began = time.perf_counter()
    found = search(system.positions, system.cell, system.pbc, REACH)
    return found, time.perf_counter() - began


if __name__ == "__main__":
    main()
