"""Molecular dynamics with SchNetPack's `SpkCalculator` and with ours, on the same weights, taking turns.

Prints time per step of ASE's Velocity Verlet, nanoseconds a day at 0.5 fs, how many times faster than SchNetPack, and
peak memory. Before anything is timed both sides must give the same energy and forces. The first run installs SchNetPack
into an environment of its own.

\b
    python benchmarks/md_speed.py --quick
    python benchmarks/md_speed.py --output docs
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from _md_results import HEADER, Row, cells, comma_separated, draw, markdown
from _report import conditions, exit_on_error, line, table
from _sides import Side, alternate, schnetpack_python, together
from _systems import WATER, make_system
from _worker import TIMESTEP_FS, Job
from ase.io import write

from schnet_ase.errors import SchNetError
from schnet_ase.output.files import atomic_write
from schnet_ase.output.progress import Progress

SYSTEMS = ("ethanol", *WATER)
TOLERANCE = 1e-4
"""Of energy and forces between the sides, relative to the largest: both compute in float32."""
LIST_STEPS = 50
"""Steps of ours in a block of a liquid at least, so that it contains its share of neighbour lists."""


class Program(NamedTuple):
    """What is compared."""

    name: str
    members: int
    way: str
    """See `Job.way`."""
    python: str | None
    """Of SchNetPack's environment; None for ours."""


def measure(
    system: str, n_features: int, threads: int, programs: Sequence[Program], blocks: int, seconds: float
) -> list[Row]:
    """Time all programs on one system, in turns; the first is what the others are compared with.

    Raises
    ------
    SchNetError
        A side failed, or they do not agree on energy and forces.
    """
    atoms = make_system(system)
    with tempfile.TemporaryDirectory() as folder:
        frames = str(Path(folder) / "atoms.traj")
        write(frames, atoms)

        def start() -> Iterator[Side]:
            for program in programs:
                ours = program.python is None
                # SchNetPack's side writes the weights for ours.
                members = program.members if ours else max(p.members for p in programs)
                job = Job("md", frames, folder, n_features, threads, members, program.way)
                least = LIST_STEPS if ours and atoms.pbc.any() else 1
                yield Side(f"{program.name} x {program.members}", job, python=program.python, least=least)

        with together(start()) as sides:
            agreements = check_agreement(sides, Path(folder))
            timings = alternate(sides, blocks, seconds)
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
            timings[0].seconds / timing.seconds,
            side.peak_mb,
            side.start_mb,
            timing.steps / timing.lists if timing.lists else None,
            agreement.of_energy,
            agreement.of_forces,
        )
        for program, timing, side, agreement in zip(programs, timings, sides, agreements, strict=True)
    ]


class Agreement(NamedTuple):
    """How one side differs from the first, relative, and what it computes with."""

    engine: str
    of_energy: float
    of_forces: float
    """The largest of a component, relative to the largest component."""


def check_agreement(sides: Sequence[Side], folder: Path) -> list[Agreement]:
    """How far the energy and forces of every side are from the first's.

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
@click.option("--threads", multiple=True, type=click.IntRange(1), help="Of each side; repeat for several.")
@click.option("--members", multiple=True, type=click.IntRange(1), help="Networks of ours; repeat for several.")
@click.option("--engine", default="auto", show_default=True, help="Of our calculators.")
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
    programs = [Program("SchNetPack", 1, "", python)]
    if keep_list:
        programs.append(Program("SchNetPack, list kept", 1, "skin", python))
    programs += [Program("schnet_ase", m, engine, None) for m in members or (1, 5)]
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
            if output is not None:  # each time: an interrupted run leaves what it has
                atomic_write(output / "performance-md.csv", comma_separated(rows))
                atomic_write(output / "performance-md.md", markdown(rows, note))
                draw(rows, output / "performance.png")
    print("\n" + note)


if __name__ == "__main__":
    main()
