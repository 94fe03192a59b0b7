"""A liquid's ensemble in dynamics: is it the liquid of the labelled frames, and is it stable?

Langevin dynamics of ENTRY from its relaxed structure, watched by its monitor. Shown is the radial distribution function
g(r) of one element beside that of the labelled frames of DATA, and how far forces and stress of the start are from
central differences of the energy. The card gets whether any bond was ever more than 0.5 Å off its length at the start,
which ends the run (a proton of a hydrogen bond may change sides), the first flag, and the time per step of dynamics
with each member and a network of 3 × 128, all taking turns, on one thread. The trajectory, its log and a picture are
kept in --runs.

    python benchmarks/liquid.py models/water water_192_pbe0ts.extxyz.gz --output docs
"""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from _entries import calibrated
from _md_time import member_times
from _report import conditions, exit_on_error, processor, table
from _runs import BROKEN
from ase import Atoms
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.geometry.rdf import get_rdf
from ase.io import Trajectory
from ase.neighborlist import natural_cutoffs, neighbor_list
from matplotlib.figure import Figure

from schnet_ase import SchNetEnsembleCalculator, UncertaintyMonitor
from schnet_ase.data import read_dataset
from schnet_ase.errors import SchNetError
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.output.figures import save_figure
from schnet_ase.output.files import atomic_write
from schnet_ase.output.progress import Progress
from schnet_ase.registry.card import Card, Dynamics, read_card, write_card
from schnet_ase.simulation.dynamics import MDRow, run_md

TIMESTEP_FS = 0.5
SPACING = 20  # steps between frames of the trajectory
BINS = 120  # of g(r)
TAKERS = (7, 8, 9)  # N, O, F: a proton on one may go to another
SHIFT = 1e-3  # Å, and relative strain, of the central differences


class Structure(NamedTuple):
    """g(r) of one element."""

    distance: Floats
    """(BINS,) Å."""
    run: Floats
    frames: Floats
    """Of the labelled ones."""


class Liquid(NamedTuple):
    """Of a run after its equilibration."""

    structure: Structure
    temperature: float
    """K, its mean."""
    moved: int
    """Protons that are on another atom at its end than they were at its start."""


class _Broken(Exception):
    """A bond is; what comes after is no liquid."""


class Errors(NamedTuple):
    """Largest differences from central differences of the energy, in float64."""

    forces: float
    """eV/Å."""
    stress: float
    """eV/Å³."""


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entry")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--element", default="O", show_default=True, help="Whose g(r).")
@click.option("--temperature", default=300.0, show_default=True, type=click.FloatRange(0.0, min_open=True), help="K.")
@click.option("--picoseconds", default=20.0, show_default=True, type=click.FloatRange(0.1))
@click.option(
    "--equilibration", default=2.0, show_default=True, type=click.FloatRange(0.0), help="ps left out of g(r)."
)
@click.option("--runs", type=click.Path(path_type=Path), help="Where the run is kept.  [default: runs/liquid-ENTRY]")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for liquid.md and liquid.png.")
@exit_on_error
def main(
    entry: str,
    data: Path,
    element: str,
    temperature: float,
    picoseconds: float,
    equilibration: float,
    runs: Path | None,
    output: Path | None,
) -> None:
    if equilibration >= picoseconds:
        raise SchNetError(f"--equilibration {equilibration:g} is not below --picoseconds {picoseconds:g}")
    card, calibration = calibrated(entry)
    start = card.structure.atoms()
    if not start.pbc.all():
        raise SchNetError(f"{card.name}: a molecule; expected a liquid, periodic in three directions")
    if element not in start.symbols:
        raise SchNetError(f"--element {element}: not in {card.name}, which is {start.get_chemical_formula()}")
    labelled = [
        Atoms(g.numbers, g.positions, cell=g.cell, pbc=g.pbc) for g in (f.geometry for f in read_dataset(data).frames)
    ]
    errors = finite_differences(start.copy(), card)
    folder = runs or Path("runs") / f"liquid-{card.name}"
    monitor, rows = dynamics(card, calibration.threshold(), temperature, picoseconds, folder)
    with Trajectory(folder / "md.traj") as trajectory:
        images = list(trajectory)
    spacing = SPACING * TIMESTEP_FS / 1000.0
    whole = until_broken(images)
    liquid = None  # of a run that broke there is none
    if whole is None:
        structure = radial_distribution(images[round(equilibration / spacing) :], labelled, element)
        kept = [row.temperature_K for row in rows if row.time_ps >= equilibration]
        liquid = Liquid(structure, float(np.mean(kept)), Bonds(images[0]).moved(images[-1]))
    times = member_times(card)
    result = Dynamics(
        temperature=temperature,
        picoseconds=picoseconds,
        stable=picoseconds if whole is None else whole * spacing,
        threshold=monitor.threshold,
        flagged=monitor.flags[0].time_fs / 1000.0 if monitor.flags else None,
        milliseconds=times.members,
        yardstick=times.yardstick,
        processor=processor(),
        command=shlex.join(["python", *sys.argv]),
    )
    write_card(replace(read_card(card.path), dynamics=result), card.path)
    page = markdown(card, data, element, result, errors, liquid)
    if output is not None:
        atomic_write(output / "liquid.md", page)
        if liquid is not None:
            draw(liquid.structure, element, data.name, output / "liquid.png")
    print(page)


def finite_differences(atoms: Atoms, card: Card) -> Errors:
    """Of a frame a little off the relaxed one, so that forces and stress are not zero."""
    atoms.rattle(0.05, seed=0)
    atoms.calc = SchNetEnsembleCalculator(card.path, dtype="float64")
    some = list(range(min(len(atoms), 12)))
    forces, stress = atoms.get_forces()[some], atoms.get_stress()
    return Errors(
        float(np.abs(forces - calculate_numerical_forces(atoms, eps=SHIFT, iatoms=some)).max()),
        float(np.abs(stress - calculate_numerical_stress(atoms, eps=SHIFT)).max()),
    )


def dynamics(
    card: Card, threshold: float, temperature: float, picoseconds: float, folder: Path
) -> tuple[UncertaintyMonitor, list[MDRow]]:
    atoms = card.structure.atoms()
    atoms.calc = SchNetEnsembleCalculator(card.path)
    folder.mkdir(parents=True, exist_ok=True)
    flagged, log = folder / "flagged.extxyz", folder / "uncertainty.csv"
    for file in (flagged, log):  # a monitor adds to what is there
        file.unlink(missing_ok=True)
    monitor = UncertaintyMonitor(atoms, threshold=threshold, file=flagged, log=log)
    steps = round(1000.0 * picoseconds / TIMESTEP_FS)
    bonds = Bonds(atoms)
    rows: list[MDRow] = []
    with Progress(steps, "dynamics") as progress, contextlib.suppress(_Broken):

        def report(step: int, row: MDRow | None) -> None:
            progress.update(step - progress.done)
            if row is not None:
                rows.append(row)
                if not bonds.whole(atoms):
                    raise _Broken

        run_md(
            atoms,
            folder / "md",
            steps=steps,
            timestep_fs=TIMESTEP_FS,
            temperature=temperature,
            thermostat=True,
            interval=SPACING,
            monitor=monitor,
            report=report,
        )
    return monitor, rows


def radial_distribution(run: Sequence[Atoms], labelled: Sequence[Atoms], element: str) -> Structure:
    """Up to half the smallest height of the cells."""
    heights = [1.0 / np.linalg.norm(atoms.cell.reciprocal(), axis=1) for atoms in (*run, *labelled)]
    farthest = 0.499 * float(np.min(heights))
    with Progress(len(run) + len(labelled), "g(r)", "frame") as progress:

        def of(atoms: Atoms) -> Floats:
            progress.update(1)
            return get_rdf(atoms[atoms.symbols == element], farthest, BINS, no_dists=True)

        means = [np.mean([of(atoms) for atoms in frames], axis=0) for frames in (run, labelled)]
    return Structure(farthest * (np.arange(BINS) + 0.5) / BINS, *means)


def until_broken(images: Sequence[Atoms]) -> int | None:
    """The first image in which a bond of the first is broken; None if there is none."""
    bonds = Bonds(images[0])
    return next((k for k, atoms in enumerate(images) if not bonds.whole(atoms)), None)


class Bonds:
    """Those of a structure at the start; a proton on N, O or F may change sides, its bond is that to the nearest."""

    def __init__(self, start: Atoms) -> None:
        first, second = neighbor_list("ij", start, natural_cutoffs(start, mult=1.25))
        takers = np.flatnonzero(np.isin(start.numbers, TAKERS))
        self._protons = np.unique(first[(start.numbers[first] == 1) & np.isin(second, takers)])
        self._takers = takers if len(takers) else np.zeros(1, dtype=np.int64)  # of no proton
        kept = (first < second) & ~np.isin(first, self._protons) & ~np.isin(second, self._protons)
        self._first, self._second = first[kept], second[kept]
        self._start = self._lengths(start)
        self._owners = self._to_takers(start).argmin(axis=1)

    def whole(self, atoms: Atoms) -> bool:
        """Whether no bond is more than 0.5 Å off its length at the start."""
        return bool(np.all(np.abs(self._lengths(atoms) - self._start) <= BROKEN))  # nor where it is not a number

    def moved(self, atoms: Atoms) -> int:
        """How many protons are on another atom than at the start."""
        return int(np.sum(self._to_takers(atoms).argmin(axis=1) != self._owners))

    def _lengths(self, atoms: Atoms) -> Floats:
        return np.concatenate([_distances(atoms, self._first, self._second), self._to_takers(atoms).min(axis=1)])

    def _to_takers(self, atoms: Atoms) -> Floats:
        """(protons, takers) Å."""
        return _distances(atoms, self._protons[:, None], self._takers[None])


def _distances(atoms: Atoms, first: Integers, second: Integers) -> Floats:
    """Å, to the nearest image, by rounding: right for short ones."""
    vectors = atoms.positions[second] - atoms.positions[first]
    scaled = vectors @ np.linalg.inv(atoms.cell.array)
    found: Floats = np.linalg.norm((scaled - np.round(scaled)) @ atoms.cell.array, axis=-1)
    return found


def markdown(
    card: Card,
    data: Path,
    element: str,
    dynamics: Dynamics,
    errors: Errors,
    liquid: Liquid | None,
) -> str:
    parts = (
        f"# {card.name}: {card.structure.atoms().get_chemical_formula()} as a liquid",
        "\n".join(f"- {line}" for line in dynamics.lines()),
        f"In a frame beside the relaxed one forces are {errors.forces:.1e} eV/Å off central differences of\n"
        f"the energy, the stress {errors.stress:.1e} eV/Å³. The cell is held: the labelled frames have no\n"
        "stress, so that nothing is said of the density.",
        *([] if liquid is None else structure_parts(data, element, liquid)),
        conditions(),
    )
    return "\n\n".join(parts) + "\n"


def structure_parts(data: Path, element: str, liquid: Liquid) -> tuple[str, str]:
    """A table and a picture."""
    structure = liquid.structure
    rows = [
        ("mean temperature (K)", f"{liquid.temperature:.1f}", ""),
        ("protons on another atom at its end", liquid.moved, ""),
        *(
            (name, f"{value(structure.run):.2f}", f"{value(structure.frames):.2f}")
            for name, value in (
                ("first maximum of g(r), at (Å)", lambda g: structure.distance[np.argmax(g)]),
                ("its height", np.max),
            )
        ),
        ("mean of the difference of g(r)", f"{np.abs(structure.run - structure.frames).mean():.3f}", ""),
    ]
    return table(("", "dynamics", data.name), rows), f"![g(r) of {element}](liquid.png)"


def draw(structure: Structure, element: str, frames: str, path: Path) -> None:
    """g(r) of the run beside that of the labelled frames."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(structure.distance, structure.frames, color="0.5", lw=2.5, label=frames)
    axes.plot(structure.distance, structure.run, color="tab:blue", lw=1.2, label="dynamics")
    axes.axhline(1.0, color="0.8", lw=0.8, zorder=0)
    axes.set(xlabel=f"{element}–{element} distance (Å)", ylabel="g(r)", xlim=(0.0, None), ylim=(0.0, None))
    axes.legend()
    save_figure(figure, path)


if __name__ == "__main__":
    main()
