"""How long dynamics with an ensemble stays a molecule, and whether the monitor flags what goes wrong before it does.

The protocol of "Forces are not enough" (Fu et al., TMLR 2023): Nosé-Hoover dynamics at 500 K with steps of 0.5 fs for
300 ps from five seeds; a run has collapsed when a bond is more than 0.5 Å off its mean length. Then runs that must
fail: at 1,500 K, and every bond pulled apart in steps of 0.01 Å. DATA holds reference frames of the molecule, TRAINING
those that the entry was trained on. Every run is kept when it is done, and not made again.

\b
    python benchmarks/stability.py ENTRY DATA TRAINING --output docs
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from _molecule import Bonds, distance_counts, distribution, distribution_error, find_bonds, pulled
from _report import conditions, exit_on_error, table
from ase import Atoms, units
from ase.md.nose_hoover_chain import NoseHooverChainNVT
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from schnet_ase import SchNetEnsembleCalculator, UncertaintyMonitor
from schnet_ase.card import Card
from schnet_ase.data import read_dataset
from schnet_ase.errors import SchNetError
from schnet_ase.files import atomic_write
from schnet_ase.progress import Progress
from schnet_ase.registry import find_card, get_card

TIMESTEP = 0.5  # fs
OFF = 0.5  # Å from its mean: a bond that is no more
LOOK_EVERY = 4  # steps between looks at the bonds
SAMPLE_EVERY = 20  # steps between frames of h(r)
BLOCK = 2000  # steps a point of the picture
PULL = 0.01  # Å
FARTHEST_PULL = 1.0  # Å beyond the longest


class Run(NamedTuple):
    """One run of dynamics."""

    temperature: float
    seed: int
    picoseconds: float
    """That it lasted."""
    collapsed: bool
    flags: int
    first_flag_fs: float | None
    lead_fs: float | None
    """Of a collapse: for how long before it no frame had been under the threshold."""
    mean_temperature: float
    milliseconds: float
    """A step."""
    h_error: float
    deviation: list[float]
    """eV/Å, the largest of each 1,000 fs."""
    counts: list[int]
    """Of h(r)."""


class Task(NamedTuple):
    """What one process runs."""

    entry: str
    numbers: list[int]
    bonds: Bonds
    temperature: float
    picoseconds: float
    seed: int
    reference: list[int]
    folder: str


class Stopped(Exception):
    """The molecule is none any more."""


def run(task: Task) -> Run:
    """Nosé-Hoover dynamics until the time is over or a bond is off; done before, it is read."""
    name = f"{task.temperature:g}K-{task.picoseconds:g}ps-seed{task.seed}"
    folder = Path(task.folder)
    file = folder / f"{name}.json"
    if file.exists():
        return Run(**json.loads(file.read_text()))
    for suffix in ("csv", "extxyz"):
        (folder / f"{name}.{suffix}").unlink(missing_ok=True)  # of a run that was not finished
    rng = np.random.default_rng(task.seed)
    atoms = _card(task.entry).structure.atoms()
    atoms.calc = SchNetEnsembleCalculator(task.entry)
    thermalize_momenta(atoms, temperature_K=task.temperature, rng=rng)
    Stationary(atoms)
    ZeroRotation(atoms)
    dynamics = NoseHooverChainNVT(atoms, TIMESTEP * units.fs, task.temperature, tdamp=100 * TIMESTEP * units.fs)
    monitor = UncertaintyMonitor(atoms, file=folder / f"{name}.extxyz", log=folder / f"{name}.csv")
    sampled: list[np.ndarray] = []
    temperatures: list[float] = []
    deviations: list[float] = []
    block: list[float] = []
    calm_until = 0

    def look() -> None:
        nonlocal calm_until
        largest = float(atoms.calc.results["forces_deviation"].max())
        if largest <= monitor.threshold:
            calm_until = dynamics.nsteps
        block.append(largest)
        if dynamics.nsteps % BLOCK == 0:
            deviations.append(max(block))
            block.clear()
        if dynamics.nsteps % SAMPLE_EVERY == 0:
            sampled.append(atoms.get_positions())
            temperatures.append(atoms.get_temperature())
        if dynamics.nsteps % LOOK_EVERY == 0:
            off = np.abs(task.bonds.lengths(atoms.positions) - task.bonds.mean).max()
            if not off <= OFF:
                raise Stopped

    dynamics.attach(monitor)
    dynamics.attach(look)
    started, collapsed = time.perf_counter(), False
    try:
        dynamics.run(round(1000.0 * task.picoseconds / TIMESTEP))
    except (Stopped, SchNetError):  # the calculator refuses positions that are not finite
        collapsed = True
    seconds = time.perf_counter() - started
    counts = distance_counts(np.array(sampled))
    result = Run(
        task.temperature,
        task.seed,
        dynamics.nsteps * TIMESTEP / 1000.0,
        collapsed,
        len(monitor.flags),
        monitor.flags[0].time_fs if monitor.flags else None,
        (dynamics.nsteps - calm_until) * TIMESTEP if collapsed else None,
        float(np.mean(temperatures)),
        1000.0 * seconds / max(1, dynamics.nsteps),
        distribution_error(counts, np.array(task.reference)),
        [*deviations, *([max(block)] if block else [])],
        counts.tolist(),
    )
    atomic_write(file, json.dumps(result._asdict()))
    (folder / f"{name}.csv").unlink()  # a row a step: 30 MB in 300 ps
    return result


def _card(entry: str) -> Card:
    return find_card(entry) or get_card(entry)


class Pull(NamedTuple):
    """Bonds of one kind pulled apart."""

    kind: str
    pulls: int
    beyond: list[float]
    """Å beyond its longest length in training when it was flagged; infinite where it was not."""


def pull_bonds(entry: str, numbers: np.ndarray, frames: np.ndarray, training: Bonds) -> list[Pull]:
    """Pull every bond apart from the relaxed structure and from `frames` (B, N, 3)."""
    calculator = SchNetEnsembleCalculator(entry)
    threshold = calculator.calibration.threshold()
    starts = [_card(entry).structure.atoms(), *(Atoms(numbers, positions) for positions in frames)]
    found: dict[str, list[float]] = {}
    for bond, kind in enumerate(training.names(numbers)):
        for start in starts:
            try:
                pulled(start, training, bond, 0.0)
            except ValueError:  # a ring cannot be pulled apart at one bond
                continue
            found.setdefault(kind, []).append(_flagged_at(start, training, bond, calculator, threshold))
    return [Pull(kind, len(beyond), beyond) for kind, beyond in sorted(found.items(), reverse=True)]


def _flagged_at(start: Atoms, bonds: Bonds, bond: int, calculator: SchNetEnsembleCalculator, threshold: float) -> float:
    longest = float(bonds.longest[bond])
    length = float(bonds.lengths(start.positions)[bond])
    for step in range(math.ceil((longest + FARTHEST_PULL - length) / PULL)):
        atoms = pulled(start, bonds, bond, step * PULL)
        atoms.calc = calculator
        atoms.get_forces()
        if calculator.results["forces_deviation"].max() > threshold:
            return length + step * PULL - longest
    return math.inf


def draw(runs: Sequence[Run], hot: Sequence[Run], reference: np.ndarray, threshold: float, path: Path) -> None:
    """Deviations against time, and h(r)."""
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    for axis, some, title in ((axes[0], runs, "stable?"), (axes[1], hot, "must fail")):
        for r in some:
            time_ps = BLOCK * TIMESTEP / 1000.0 * np.arange(1, len(r.deviation) + 1)
            time_ps[-1:] = r.picoseconds
            (curve,) = axis.semilogy(time_ps, r.deviation, lw=0.7, label=f"seed {r.seed}")
            if r.collapsed:
                axis.plot(r.picoseconds, r.deviation[-1], "X", color=curve.get_color())
        axis.axhline(threshold, color="0.4", ls="--", lw=0.8)
        axis.set(xlabel="time (ps)", ylabel="largest forces_deviation (eV/Å)")
        if some:
            axis.set_title(f"{some[0].temperature:g} K, {title} ×: collapsed")
            axis.legend(frameon=False, fontsize=7)
    r = 10.0 / len(reference) * (np.arange(len(reference)) + 0.5)
    axes[2].plot(r, distribution(reference), color="0.6", lw=2.5, label="reference frames")
    if runs:
        axes[2].plot(
            r, distribution(np.sum([x.counts for x in runs], axis=0)), color="tab:blue", lw=0.8, label="ensemble"
        )
    axes[2].set(xlabel="r (Å)", ylabel="h(r) (1/Å)", xlim=(0.5, 5.5))
    axes[2].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def report(runs: Sequence[Run], hot: Sequence[Run], pulls: Sequence[Pull], threshold: float, note: str) -> str:
    """The page."""
    header = (
        "T (K)",
        "seed",
        "ps",
        "collapsed",
        "lead (fs)",
        "flags",
        "flags/ps",
        "first flag (ps)",
        "mean T (K)",
        "h(r) error",
        "ms/step",
    )
    rows = [
        (
            f"{r.temperature:g}",
            str(r.seed),
            f"{r.picoseconds:.1f}",
            "yes" if r.collapsed else "no",
            "" if r.lead_fs is None else f"{r.lead_fs:.0f}",
            str(r.flags),
            f"{r.flags / max(r.picoseconds, 1e-9):.2f}",
            "" if r.first_flag_fs is None else f"{r.first_flag_fs / 1000.0:.2f}",
            f"{r.mean_temperature:.0f}",
            f"{r.h_error:.3f}",
            f"{r.milliseconds:.2f}",
        )
        for r in (*runs, *hot)
    ]
    pulled_header = ("bond", "pulls", "flagged", "Å beyond the longest in training: median", "latest")
    pulled_rows = [
        (
            p.kind,
            str(p.pulls),
            str(sum(map(math.isfinite, p.beyond))),
            f"{np.median(p.beyond):+.2f}",
            f"{max(p.beyond):+.2f}",
        )
        for p in pulls
    ]
    return (
        f"# Stability, measured\n\n{note}\n\n"
        f"Threshold {threshold:.4f} eV/Å, from the card.\n\n{table(header, rows)}\n\n"
        "Lead: for how long before a collapse no frame had been under the threshold. Flags are at least 100 steps "
        f"apart.\n\n{table(pulled_header, pulled_rows)}\n\n![Deviations against time, and distances](stability.png)\n"
    )


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entry")
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("training", type=click.Path(path_type=Path))
@click.option("--picoseconds", default=300.0, show_default=True, help="At 500 K.")
@click.option("--hot-picoseconds", default=20.0, show_default=True, help="At 1,500 K.")
@click.option("--seeds", default=5, show_default=True)
@click.option("--starts", default=20, show_default=True, help="Frames of DATA to pull bonds of.")
@click.option("--workers", default=2, show_default=True)
@click.option("--runs", type=click.Path(path_type=Path), help="Where runs are kept.  [default: runs/stability-ENTRY]")
@click.option("--output", type=click.Path(path_type=Path), default="docs", help="Folder for stability.md and .png.")
@exit_on_error
def main(
    entry: str,
    data: Path,
    training: Path,
    picoseconds: float,
    hot_picoseconds: float,
    seeds: int,
    starts: int,
    workers: int,
    runs: Path | None,
    output: Path,
) -> None:
    frames = np.array([f.geometry.positions for f in read_dataset(data).frames])
    trained = read_dataset(training).frames
    numbers = trained[0].geometry.numbers
    bonds = find_bonds(numbers, frames)
    folder = runs or Path("runs") / f"stability-{Path(entry).name}"
    folder.mkdir(parents=True, exist_ok=True)
    reference = distance_counts(frames)
    threshold = SchNetEnsembleCalculator(entry).calibration.threshold()
    tasks = [
        Task(entry, numbers.tolist(), bonds, temperature, ps, seed, reference.tolist(), str(folder))
        for temperature, ps in ((1500.0, hot_picoseconds), (500.0, picoseconds))
        for seed in range(seeds)
    ]
    done: list[Run] = []
    pulls = pull_bonds(
        entry,
        numbers,
        frames[:: max(1, len(frames) // starts)],
        find_bonds(numbers, np.array([f.geometry.positions for f in trained])),
    )
    with (
        Progress(len(tasks), "stability", "run") as progress,
        ProcessPoolExecutor(workers, get_context("spawn")) as pool,
    ):
        for result in pool.map(run, tasks):
            done.append(result)
            hot = [r for r in done if r.temperature == tasks[0].temperature]
            calm = [r for r in done if r.temperature != tasks[0].temperature]
            end = "collapsed" if result.collapsed else "whole"
            progress.print(f"{result.temperature:g} K, seed {result.seed}: {end} after {result.picoseconds:.1f} ps")
            progress.update()
            atomic_write(output / "stability.md", report(calm, hot, pulls, threshold, conditions()))
            draw(calm, hot, reference, threshold, output / "stability.png")
    print((output / "stability.md").read_text())


if __name__ == "__main__":
    main()
