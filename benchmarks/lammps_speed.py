"""Speed and memory in LAMMPS: pair style schnet, deepmd-kit and a classical water, beside ASE with our engine.

All sides run the same box of water (the structure of the entry `water`, copied) at 300 K with steps of 0.5 fs, in
turns. Times are per atom and step. With one rank processor time is compared, which other programs on the machine
disturb less; ranks that wait for each other use processor time as well, so that the speed-up by ranks is that of wall
times, each of the fastest of many blocks of steps. deepmd-kit's network is its example's (examples/water/se_e2_a), not
trained; its environment needs `pip install "deepmd-kit[cpu,lmp]"`.

\b
    python benchmarks/lammps_speed.py --quick
    python benchmarks/lammps_speed.py --deepmd /path/to/deepmd/bin/python --output docs
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import click
from _lammps_sides import Side, Time, classical, deepmd, make_deepmd, schnet, time_side
from _report import conditions, exit_on_error, publish, table
from ase import Atoms

from schnet_ase.export.lammps import build_plugin, write_model_file
from schnet_ase.registry.loading import load_model, locate_members
from schnet_ase.registry.lookup import find_card

ENTRY = "water"
TEMPERATURE = 300.0
COMPARED = 12288
"""Atoms at which the sides are compared."""
COPIES = {192: (1, 1, 1), 1536: (2, 2, 2), 12288: (4, 4, 4), 98304: (8, 8, 8), 1057536: (18, 18, 17)}
HEADER = ("side", "atoms", "ranks", "µs/atom/step, processor", "µs/atom/step, wall", "MB/rank", "bytes/atom")
ASE = """
import sys, time, resource
import numpy as np
from ase import units
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator
from schnet_ase.registry.lookup import find_card
copies, members, blocks, steps, temperature = *map(int, sys.argv[1:5]), float(sys.argv[5])
atoms = find_card("water").structure.atoms().repeat(copies)
thermalize_momenta(atoms, temperature_K=temperature, rng=np.random.default_rng(0))
ensemble = members > 1
atoms.calc = SchNetEnsembleCalculator("water", threads=1) if ensemble else SchNetCalculator("water/fold-1", threads=1)
dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
dynamics.run(steps)
walls, processor = [], time.process_time()
for _ in range(blocks):
    start = time.perf_counter()
    dynamics.run(steps)
    walls.append(time.perf_counter() - start)
processor = time.process_time() - processor
per_atom = 1e6 / steps / len(atoms)
print(min(walls) * per_atom, processor / blocks * per_atom, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


class Case(NamedTuple):
    """One side for a number of atoms and ranks."""

    side: str
    atoms: int
    ranks: int
    run: Callable[[], Time]


class Row(NamedTuple):
    """Medians of the rounds."""

    case: Case
    times: list[Time]

    def median(self, of: str) -> float:
        return statistics.median(getattr(time, of) for time in self.times)


def ase_side(atoms: int, members: int, blocks: int, steps: int) -> Time:
    """Time our engine in ASE, in a process of its own."""
    numbers = (COPIES[atoms][0], members, blocks, steps, TEMPERATURE)
    command = [sys.executable, "-c", ASE, *map(str, numbers)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return Time(*map(float, result.stdout.split()))


def lammps_sides(folder: Path, deepmd_python: Path | None) -> dict[str, Side]:
    """Write the files of all sides that LAMMPS runs."""
    card = find_card(ENTRY)
    assert card is not None
    atoms: Atoms = card.structure.atoms()
    members = [loaded.model for loaded in locate_members(ENTRY)]
    plugin = build_plugin().path
    write_model_file(folder / "one", members[:1], name="one")
    write_model_file(folder / "five", members, name="five")
    sides = {
        "schnet, one network": schnet("one", atoms, folder, plugin, folder / "one", members=1),
        "schnet, five and their deviation": schnet("five", atoms, folder, plugin, folder / "five", members=5),
        "lj/cut/coul/long": classical(atoms, folder),
    }
    if card.student is not None:
        write_model_file(folder / "student", [load_model(f"{ENTRY}/student")], name="student")
        sides["schnet, student"] = schnet("student", atoms, folder, plugin, folder / "student", members=1)
    if deepmd_python is not None:
        (folder / "deepmd").mkdir()
        for name, model in zip(("", ", compressed"), make_deepmd(atoms, folder / "deepmd", deepmd_python), strict=True):
            sides[f"deepmd{name}"] = deepmd(f"deepmd{name}", atoms, folder, deepmd_python, model)
    return sides


def cases(sides: dict[str, Side], sizes: list[int], blocks: int) -> Iterator[Case]:
    """Yield all that is timed in a round; long runs are of fewer steps, and only one network has a million atoms."""
    for atoms in sizes:
        steps = max(2, min(200, 240_000 // atoms))
        for name, side in sides.items():
            slow = name.startswith("deepmd") or "five" in name
            for ranks in (1,) if name.startswith("deepmd") else (1, 2):
                if atoms <= COMPARED or not slow:  # five of a million atoms and deepmd would take too long
                    few = max(2, steps // 10) if name.startswith("deepmd") else steps
                    times = blocks if atoms <= COMPARED and not slow else 2
                    yield Case(name, atoms, ranks, _timed(side, atoms, ranks, times, few))
        if atoms <= COMPARED:
            for members in (1, 5):
                name = f"ASE, {'one network' if members == 1 else 'five and their deviation'}"
                yield Case(name, atoms, 1, _timed_in_ase(atoms, members, blocks, steps))


def _timed(side: Side, atoms: int, ranks: int, blocks: int, steps: int) -> Callable[[], Time]:
    return lambda: time_side(side, COPIES[atoms], blocks, steps, ranks=ranks, temperature=TEMPERATURE)


def _timed_in_ase(atoms: int, members: int, blocks: int, steps: int) -> Callable[[], Time]:
    return lambda: ase_side(atoms, members, blocks, steps)


def ratios(rows: list[Row]) -> str:
    """Return the medians over rounds of the ratios within a round, as a table; nothing if no two sides are compared."""
    found = {(row.case.side, row.case.atoms, row.case.ranks): row.times for row in rows}
    one, five = "schnet, one network", "schnet, five and their deviation"
    largest = max(atoms for _, atoms, _ in found)
    wanted = [
        ("processor time of ASE's one network / LAMMPS's", ("ASE, one network", COMPARED, 1), (one, COMPARED, 1)),
        (
            "processor time of ASE's five / LAMMPS's",
            ("ASE, five and their deviation", COMPARED, 1),
            (five, COMPARED, 1),
        ),
        ("processor time of deepmd / schnet", ("deepmd", COMPARED, 1), (one, COMPARED, 1)),
        ("processor time of deepmd, compressed / schnet", ("deepmd, compressed", COMPARED, 1), (one, COMPARED, 1)),
        ("processor time of five / one", (five, COMPARED, 1), (one, COMPARED, 1)),
        (f"processor time per atom at {largest:,} atoms / this", (one, largest, 1), (one, COMPARED, 1)),
        ("wall time of one rank / two", (one, COMPARED, 1), (one, COMPARED, 2)),
        ("wall time of one rank / two, five", (five, COMPARED, 1), (five, COMPARED, 2)),
    ]
    lines = []
    for name, above, below in wanted:
        if above in found and below in found and above != below:
            of = name.split()[0]
            each = [getattr(a, of) / getattr(b, of) for a, b in zip(found[above], found[below], strict=True)]
            lines.append(
                (f"{name}, {COMPARED:,} atoms" if "atom at" not in name else name, f"{statistics.median(each):.2f}")
            )
    return table((f"ratio at {COMPARED:,} atoms", "median"), lines) if lines else ""


def cells(row: Row) -> tuple[object, ...]:
    """Return a row as it is printed."""
    case, megabytes = row.case, row.median("megabytes")
    each = f"{megabytes * 2**20 * case.ranks / case.atoms:.0f}" if case.atoms >= COMPARED else ""
    times = [f"{row.median(of):.3g}" for of in ("processor", "wall")]
    return (case.side, f"{case.atoms:,}", case.ranks, *times, f"{megabytes:.0f}", each)


@click.command(help=__doc__)
@click.option("--atoms", "sizes", multiple=True, type=click.Choice([str(n) for n in COPIES]), help="[default: all]")
@click.option("--side", "wanted", multiple=True, help="Only sides with these words in their names.")
@click.option("--deepmd", "deepmd_python", type=click.Path(path_type=Path, exists=True), help="Python with deepmd-kit.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--blocks", default=10, show_default=True, type=click.IntRange(1), help="Of steps, in a run.")
@click.option("--quick", is_flag=True, help="192 atoms, one round of two blocks.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for performance-lammps.md and .csv.")
@exit_on_error
def main(
    sizes: tuple[str, ...],
    wanted: tuple[str, ...],
    deepmd_python: Path | None,
    rounds: int,
    blocks: int,
    quick: bool,
    output: Path | None,
) -> None:
    numbers = [192] if quick else [int(size) for size in sizes] or list(COPIES)
    if quick:
        rounds, blocks = 1, 2
    with tempfile.TemporaryDirectory() as name:
        sides = lammps_sides(Path(name), deepmd_python and deepmd_python.absolute())
        rows = [Row(case, []) for case in cases(sides, numbers, blocks)]
        rows = [row for row in rows if not wanted or any(words in row.case.side for words in wanted)]
        for number in range(rounds):
            for row in rows:
                row.times.append(row.case.run())
                case, time = row.case, row.times[-1]
                where = f"{case.side}, {case.atoms} atoms, {case.ranks} ranks"
                print(f"{number + 1}/{rounds} {where}: {time}", file=sys.stderr)
    theirs = "" if deepmd_python is None else "; deepmd-kit in an environment of its own"
    note = f"{conditions()} LAMMPS {version('lammps')}{theirs}."
    title, lines = "Speed in LAMMPS, measured", [cells(row) for row in rows]
    publish("performance-lammps", title, HEADER, lines, None, output, note, [ratios(rows)])


if __name__ == "__main__":
    main()
