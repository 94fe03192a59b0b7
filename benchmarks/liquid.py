"""Dynamics of a liquid with an ensemble: its structure compared with the labelled frames, and its stability.

The run is that of `schnet-ase models check ENTRY`, and is reused if that command has made it. Printed are the radial
distribution function g(r) of one element and that of the labelled frames of DATA, the number of protons that
transferred, and the differences of forces and stress at the start from central differences of the energy.

    python benchmarks/liquid.py water water_192_pbe0ts.extxyz.gz --output docs
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from _entries import calibrated
from _report import conditions, exit_on_error, table
from ase import Atoms
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.geometry.rdf import get_rdf
from matplotlib.figure import Figure

from schnet_ase import SchNetEnsembleCalculator
from schnet_ase.data import read_dataset
from schnet_ase.errors import SchNetError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.output.figures import save_figure
from schnet_ase.output.files import atomic_write
from schnet_ase.output.progress import Progress
from schnet_ase.registry.card import Card
from schnet_ase.stability.pool import run_jobs
from schnet_ase.stability.runs import BLOCK, Job, Run, make_job
from schnet_ase.stability.thermostats import TIMESTEP_FS

BINS = 120  # of g(r)
SHIFT = 1e-3  # Å, and relative strain, of the central differences


class Structure(NamedTuple):
    """g(r) of one element."""

    distance: Floats
    """(BINS,) Å."""
    run: Floats
    frames: Floats
    """(BINS,) g(r) of the labelled frames."""


class Errors(NamedTuple):
    """Largest differences from central differences of the energy, in float64."""

    forces: float
    """eV/Å."""
    stress: float
    """eV/Å³."""


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entry")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--element", default="O", show_default=True, help="Element of g(r).")
@click.option("--temperature", default=300.0, show_default=True, type=click.FloatRange(0.0, min_open=True), help="K.")
@click.option("--picoseconds", default=100.0, show_default=True, type=click.FloatRange(0.1))
@click.option(
    "--equilibration", default=2.0, show_default=True, type=click.FloatRange(0.0), help="ps left out of g(r)."
)
@click.option("--runs", type=click.Path(path_type=Path), help="Where the run is kept.  [default: runs/ENTRY-check]")
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
    job = make_job(card, card, temperature, picoseconds)
    with Progress(job.steps, "dynamics") as progress:
        ((_, run),) = run_jobs([job], runs or Path("runs") / f"{card.name}-check", 1, progress)
    structure = None  # stays None if the run broke
    if not run.collapsed:
        blocks = round(1000.0 * equilibration / TIMESTEP_FS / BLOCK)
        run = run._replace(frames=run.frames[blocks:], kinetic=run.kinetic[blocks * BLOCK :])
        structure = radial_distribution([_placed(start, positions) for positions in run.frames], labelled, element)
    page = markdown(card, data, element, job, run, calibration.threshold(), errors, structure)
    if output is not None:
        atomic_write(output / "liquid.md", page)
        if structure is not None:
            draw(structure, element, data.name, output / "liquid.png")
    print(page)


def _placed(start: Atoms, positions: Floats) -> Atoms:
    atoms = start.copy()
    atoms.positions = positions
    return atoms


def finite_differences(atoms: Atoms, card: Card) -> Errors:
    """Compute the errors for a frame slightly off the relaxed one, where forces and stress are not zero."""
    atoms.rattle(0.05, seed=0)
    atoms.calc = SchNetEnsembleCalculator(card.path, dtype="float64")
    some = list(range(min(len(atoms), 12)))
    forces, stress = atoms.get_forces()[some], atoms.get_stress()
    return Errors(
        float(np.abs(forces - calculate_numerical_forces(atoms, eps=SHIFT, iatoms=some)).max()),
        float(np.abs(stress - calculate_numerical_stress(atoms, eps=SHIFT)).max()),
    )


def radial_distribution(run: Sequence[Atoms], labelled: Sequence[Atoms], element: str) -> Structure:
    """Compute g(r) up to half the smallest height of the cells."""
    heights = [1.0 / np.linalg.norm(atoms.cell.reciprocal(), axis=1) for atoms in (*run, *labelled)]
    farthest = 0.499 * float(np.min(heights))
    with Progress(len(run) + len(labelled), "g(r)", "frame") as progress:

        def of(atoms: Atoms) -> Floats:
            progress.update(1)
            return get_rdf(atoms[atoms.symbols == element], farthest, BINS, no_dists=True)

        means = [np.mean([of(atoms) for atoms in frames], axis=0) for frames in (run, labelled)]
    return Structure(farthest * (np.arange(BINS) + 0.5) / BINS, *means)


def markdown(
    card: Card,
    data: Path,
    element: str,
    job: Job,
    run: Run,
    threshold: float,
    errors: Errors,
    structure: Structure | None,
) -> str:
    flags = run.flags(threshold)
    first = f"first flag after {flags[0] * TIMESTEP_FS / 1000.0:.3f} ps" if flags else "none flagged"
    end = f"a bond broke after {run.picoseconds:.3f} ps" if run.collapsed else "stable"
    parts = (
        f"# {card.name}: {card.structure.atoms().get_chemical_formula()} as a liquid",
        f"{job.picoseconds:g} ps at {job.temperature:g} K: {end}; {first}, at {threshold:.4f} eV/Å.",
        f"In a frame beside the relaxed one forces are {errors.forces:.1e} eV/Å off central differences of\n"
        f"the energy, the stress {errors.stress:.1e} eV/Å³. The cell is held: the labelled frames have no\n"
        "stress, so that nothing is said of the density.",
        *([] if structure is None else structure_parts(data, element, job, run, structure)),
        conditions(),
    )
    return "\n\n".join(parts) + "\n"


def structure_parts(data: Path, element: str, job: Job, run: Run, structure: Structure) -> tuple[str, str]:
    """Return the parts of the page on the structure, a table and a figure."""
    start, end = (job.bonds.holders(positions) for positions in (np.array(job.structure.positions), run.last))
    rows = [
        ("mean temperature (K)", f"{run.temperature:.1f}", ""),
        ("protons on another atom at its end", int((start != end).sum()), ""),
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
    """Plot g(r) of the run and of the labelled frames."""
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
