"""Molecular dynamics with SchNetPack's `SpkCalculator` and with this package, in turns on the same weights.

Prints the time per step of ASE's velocity Verlet, nanoseconds per day at 0.5 fs, the speed-up over SchNetPack, and the
peak memory. Before the timing, both sides must give the same energy and forces. The first run installs SchNetPack into
its own environment.

\b
    python benchmarks/md_speed.py --quick
    python benchmarks/md_speed.py --output docs
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from _report import conditions, exit_on_error, line, table, write_results
from _sides import Program, Side, compare, schnetpack_python
from _systems import WATER, make_system
from _worker import TIMESTEP_FS, Job
from matplotlib.figure import Figure

from schnet_ase.errors import SchNetError
from schnet_ase.output.figures import save_figure
from schnet_ase.output.progress import Progress

SYSTEMS = ("ethanol", *WATER)
TOLERANCE = 1e-4
"""Largest difference of energy and forces between the sides, relative to the largest value; both use float32."""
LIST_STEPS = 50
"""Least number of our steps in a block for a liquid, so that it contains its share of neighbour lists."""


class Row(NamedTuple):
    """Result of one program for one system."""

    system: str
    atoms: int
    n_features: int
    threads: int
    program: str
    members: int
    engine: str
    ms_per_step: float
    spread: float
    """Relative spread of `ms_per_step` over the blocks: half the distance between quartiles."""
    ns_per_day: float
    times_faster: float
    """Speed-up over SchNetPack with one network in the same run."""
    peak_mb: float
    start_mb: float
    """Memory before the first evaluation, MB."""
    steps_per_list: float | None
    """Number of our steps per neighbour list; None if no list was made."""
    energy_difference: float
    force_difference: float
    """Largest difference of a force component from SchNetPack's, relative to the largest component."""


HEADER = ("system", "F", "threads", "program", "ms/step", "ns/day", "times faster", "peak MB", "steps/list", "ΔF rel.")


def cells(row: Row) -> tuple[object, ...]:
    """Return a row as it is printed."""
    program = f"{row.program} ({row.engine})"
    if row.members > 1:
        program += f", {row.members} members with spread"
    return (
        row.system,
        row.n_features,
        row.threads,
        program,
        f"{row.ms_per_step:.3g} ± {row.spread:.0%}",
        f"{row.ns_per_day:.3g}",
        f"{row.times_faster:.1f}",
        f"{row.peak_mb:.0f}",
        "" if row.steps_per_list is None else f"{row.steps_per_list:.0f}",
        f"{row.force_difference:.0e}",
    )


def exponents(rows: Sequence[Row]) -> list[tuple[object, ...]]:
    """Fit the exponents by which time and memory grow with the number of atoms of the liquid."""
    found = []
    for key in dict.fromkeys((r.program, r.members, r.n_features, r.threads) for r in rows):
        same = [r for r in rows if (r.program, r.members, r.n_features, r.threads) == key and r.system in WATER]
        grown = [(r.atoms, r.peak_mb - r.start_mb) for r in same if r.peak_mb - r.start_mb > 10.0]
        found.append((*key, _slope([(r.atoms, r.ms_per_step) for r in same]), _slope(grown)))
    return [row for row in found if row[-2] != "–"]


def _slope(points: Sequence[tuple[int, float]]) -> str:
    if len(points) < 2:
        return "–"
    x, y = np.log(np.array(points)).T
    return f"{np.polyfit(x, y, 1)[0]:.2f}"


def markdown(rows: Sequence[Row], note: str) -> str:
    """Return the results as a page."""
    parts = ["# Speed of molecular dynamics, measured", note, table(HEADER, map(cells, rows))]
    slopes = exponents(rows)
    if slopes:
        header = ("program", "members", "F", "threads", "time ∝ atoms^", "memory above start ∝ atoms^")
        parts.append(table(header, slopes))
    return "\n\n".join(parts) + "\n"


def draw(rows: Sequence[Row], path: Path) -> None:
    """Plot time per step and peak memory against the number of atoms, for one thread."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    programs = dict.fromkeys((r.program, r.members) for r in rows)
    for color, (program, members) in zip(("0.4", "tab:blue", "tab:orange", "tab:green"), programs, strict=False):
        for style, n_features in zip(("o-", "s--"), dict.fromkeys(r.n_features for r in rows), strict=False):
            key = (program, members, n_features, min(r.threads for r in rows))
            same = [r for r in rows if (r.program, r.members, r.n_features, r.threads) == key]
            label = f"{program}{f', {members} members' if members > 1 else ''}, F = {n_features}"
            left.loglog([r.atoms for r in same], [r.ms_per_step for r in same], style, color=color, label=label, ms=4)
            right.loglog([r.atoms for r in same], [r.peak_mb for r in same], style, color=color, ms=4)
    left.set(xlabel="atoms", ylabel="time per MD step (ms)")
    right.set(xlabel="atoms", ylabel="peak memory of the process (MB)")
    left.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def measure(
    system: str, n_features: int, threads: int, programs: Sequence[Program], blocks: int, seconds: float
) -> list[Row]:
    """Time all programs for one system in turns; the others are compared with the first.

    Raises
    ------
    SchNetError
        A side failed, or they do not agree on energy and forces.
    """
    atoms = make_system(system)
    if atoms.pbc.any():
        programs = [p._replace(least=LIST_STEPS) if p.python is None else p for p in programs]
    job = Job("md", "", "", n_features, threads, 1, "")
    found = compare(job, [atoms], programs, check_agreement, blocks, seconds)
    slowest = found[0][1].seconds
    return [
        Row(
            system,
            len(atoms),
            n_features,
            threads,
            program.name,
            program.members,
            agreement.engine,
            1000.0 * timing.seconds,
            timing.spread,
            86400.0 / timing.seconds * TIMESTEP_FS * 1e-6,
            slowest / timing.seconds,
            side.peak_mb,
            side.start_mb,
            timing.steps / timing.lists if timing.lists else None,
            agreement.of_energy,
            agreement.of_forces,
        )
        for program, (side, timing, agreement) in zip(programs, found, strict=True)
    ]


class Agreement(NamedTuple):
    """Relative differences of one side from the first, and the engine that it uses."""

    engine: str
    of_energy: float
    of_forces: float
    """Largest difference of a component, relative to the largest component."""


def check_agreement(sides: Sequence[Side], folder: Path) -> list[Agreement]:
    """Compare energy and forces of every side with those of the first.

    Raises
    ------
    SchNetError
        They differ by more than rounding.
    """
    answers, forces = [], []
    for number, side in enumerate(sides):
        file = folder / f"forces-{number}.npy"
        answers.append(side.ask("forces", file=str(file)))
        forces.append(np.load(file))
    found = []
    for side, answer, force in zip(sides, answers, forces, strict=True):
        of_energy = abs(answer["energy"] - answers[0]["energy"]) / abs(answers[0]["energy"])
        of_forces = float(np.abs(force - forces[0]).max() / np.abs(forces[0]).max())
        if not (of_energy <= TOLERANCE and of_forces <= TOLERANCE):
            raise SchNetError(
                f"{side.name} and {sides[0].name} differ by {of_energy:.1e} in the energy and {of_forces:.1e} in the "
                f"forces, relative; expected at most {TOLERANCE:.0e}: nothing was timed"
            )
        found.append(Agreement(answer["engine"], of_energy, of_forces))
    return found


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--system", "systems", multiple=True, type=click.Choice(SYSTEMS), help="Repeat for several.")
@click.option("--features", multiple=True, type=click.IntRange(1), help="F; repeat for several.")
@click.option("--threads", multiple=True, type=click.IntRange(1), help="Threads of each side; repeat for several.")
@click.option("--members", multiple=True, type=click.IntRange(1), help="Number of our networks; repeat for several.")
@click.option("--engine", default="auto", show_default=True, help="Engine of our calculators.")
@click.option("--keep-list", is_flag=True, help="Time SchNetPack with its SkinNeighborList too.")
@click.option("--quick", is_flag=True, help="Small systems, short blocks: a minute. Otherwise about an hour.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="Folder for performance-md.md, .csv and performance.png."
)
@click.option("--schnetpack-venv", type=click.Path(path_type=Path), help="Environment with SchNetPack 2.1.1.")
@exit_on_error
def main(
    systems: tuple[str, ...],
    features: tuple[int, ...],
    threads: tuple[int, ...],
    members: tuple[int, ...],
    engine: str,
    keep_list: bool,
    quick: bool,
    output: Path | None,
    schnetpack_venv: Path | None,
) -> None:
    configurations = list(
        itertools.product(
            systems or (SYSTEMS[:2] if quick else SYSTEMS),
            features or ((64,) if quick else (64, 128)),
            threads or ((1,) if quick else (1, 2)),
        )
    )
    python = schnetpack_python(schnetpack_venv)
    programs = [Program("SchNetPack", "", python)]
    if keep_list:
        programs.append(Program("SchNetPack, list kept", "skin", python))
    programs += [Program("schnet_ase", engine, members=m) for m in members or (1, 5)]
    blocks, seconds = (3, 0.5) if quick else (7, 2.0)
    note = conditions(python)
    rows: list[Row] = []
    print(table(HEADER, ()))
    with Progress(len(configurations), "md_speed", "configuration") as progress:
        for configuration in configurations:
            new = measure(*configuration, programs, blocks, seconds)
            rows += new
            progress.print("\n".join(line(cells(row)) for row in new))
            progress.update()
            if output is not None:  # after each system, so that an interrupted run leaves its results
                exact = [["" if v is None else f"{v:.6g}" if isinstance(v, float) else v for v in r] for r in rows]
                write_results(output, "performance-md", markdown(rows, note), Row._fields, exact)
                draw(rows, output / "performance.png")
    print("\n" + note)


if __name__ == "__main__":
    main()
