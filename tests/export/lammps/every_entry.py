"""Compare pair style schnet with ASE for every shipped entry, and 1,000 steps of NVE; print the largest differences.

Too long for the tests; `python -m tests.export.lammps.every_entry --output docs` writes what the documentation shows.
"""

from __future__ import annotations

import itertools
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.lammps import convert
from ase.geometry import find_mic
from ase.io import write
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from schnet_ase import SchNet, SchNetCalculator, SchNetConfig, SchNetEnsembleCalculator, list_models, load_model
from schnet_ase.export.lammps import build_plugin, write_model_file
from schnet_ase.output.files import atomic_write
from schnet_ase.registry.loading import locate_members
from tests.support.lammps import Printed, end, lammps_input, pair_lines, printed, run_lammps

RANKS = (1, 2, 3, 4, 8)
STRAIN = np.array([[0.02, 0.0, 0.0], [0.05, -0.03, 0.0], [-0.04, 0.06, 0.01]])
STEP_FS = 0.5
MVV2E = 1.0364269e-4
"""LAMMPS's (g/mol) (Å/ps)² in eV."""
PRESSED = 0.75
"""Lengths of the molecule whose nuclei repel, of those that it has."""
PAGE = """# Exactness in LAMMPS, measured

`{command}` compares pair style `schnet` with ASE: the largest differences over {ranks} ranks of
the energy and the energies of the atoms (eV), the forces and the members' deviation (eV/Å). Both compute in the same
dtype. The difference of the stress is relative to its largest component; LAMMPS's bar differs from ASE's by 3e-7.
Structures are the entry's own with random displacements of 0.02 Å. A strained box is triclinic and periodic, and so
small around a molecule that atoms see their own images. Where a student drives, the members watch. In float32 the
differences grow with the largest force, which is given.

{one}

The second table follows {steps} steps of NVE of one network (a student where there is one) from 300 K in float64, from
the same start, on two ranks and in ASE: the largest distance between an atom in LAMMPS and in ASE after as many steps,
the swing of the total energy (largest less smallest, eV per atom), and its drift (eV per atom and 1,000 steps).

"""
HEADER = (
    *("entry", "structure", "atoms", "largest force", "dtype"),
    *("energy", "energies", "forces", "stress", "deviation"),
)
NVE = ("3bpa", "rmd17-aspirin", "rmd17-ethanol", "water")


class Subject(NamedTuple):
    """The networks of an entry, and the structures on which they are compared."""

    name: str
    members: list[SchNet]
    student: SchNet | None
    structures: list[tuple[str, Atoms]]


def subjects(entries: tuple[str, ...]) -> Iterator[Subject]:
    """Yield the shipped entries, with their students apart, and networks with the repulsion of nuclei."""
    for card in reversed(list_models()):  # water first, which takes longest
        if entries and card.name not in entries:
            continue
        members = [loaded.model for loaded in locate_members(card.name)]
        atoms = card.structure.atoms()
        structures = list(_structures(atoms, copies=card.name == "water"))
        yield Subject(card.name, members, None, structures)
        if card.student is not None:
            yield Subject(f"{card.name}, student", members, load_model(f"{card.name}/student"), structures)
        if card.name == "rmd17-ethanol":
            pressed = atoms.copy()
            pressed.positions *= PRESSED
            yield Subject("untrained, zbl", _repelling(), None, list(_structures(pressed, copies=False)))


def _structures(start: Atoms, *, copies: bool) -> Iterator[tuple[str, Atoms]]:
    """Yield a structure as it is, in a strained box that is not rectangular, and water as others have it."""
    atoms = start.copy()
    atoms.rattle(0.02, rng=np.random.default_rng(0))
    if not atoms.pbc.any():
        atoms.center(vacuum=5.0)
    yield "own", atoms
    strained = atoms.copy()
    if not atoms.pbc.any():
        strained.center(vacuum=2.0)
        strained.pbc = True
    strained.set_cell(strained.cell.array @ (np.eye(3) + STRAIN), scale_atoms=True)
    strained.wrap()
    yield "strained box", strained
    if copies:
        yield "copied", atoms.repeat(2)
        for kind, pbc in (("slab", (True, True, False)), ("cluster", (False, False, False))):
            cut = atoms.copy()
            cut.pbc = pbc
            cut.center(vacuum=5.0, axis=[axis for axis in range(3) if not pbc[axis]])
            yield kind, cut


def _repelling() -> list[SchNet]:
    """Make networks of random weights whose nuclei repel."""
    members = []
    for seed in range(3):
        torch.manual_seed(seed)
        config = SchNetConfig(cutoff=5.0, n_rbf=32, gamma=None, envelope="cosine", prior="zbl")
        members.append(SchNet(config).eval())
        members[-1].elements = (1, 6, 8)
    return members


class Differences(NamedTuple):
    """The largest differences over all numbers of ranks."""

    energy: float
    energies: float
    forces: float
    stress: float
    deviation: float
    largest_force: float
    """In ASE."""


def differences(
    subject: Subject, start: Atoms, dtype: str, numbers_of_ranks: tuple[int, ...], model: Path, plugin: Path
) -> Differences:
    """Run a structure on all numbers of ranks."""
    members, student = subject.members, subject.student
    atoms = start.copy()
    ensemble = SchNetEnsembleCalculator(members, dtype=dtype) if len(members) > 1 else None
    driver = student or members[0]
    atoms.calc = SchNetCalculator(driver, dtype=dtype) if student or ensemble is None else ensemble
    forces, energies = atoms.get_forces(), atoms.get_potential_energies()
    deviation = None if ensemble is None else ensemble.get_property("forces_deviation", atoms)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = lammps_input(folder, atoms, pair_lines(plugin, model, atoms), members=len(members))
        each = []
        for ranks in numbers_of_ranks:
            result = run_lammps(folder, text, ranks=ranks)
            if result.returncode:
                sys.exit(f"{subject.name}, {atoms}, {ranks} ranks: {result.stdout}{result.stderr}")
            found = printed(folder, atoms, members=len(members))
            each.append(
                [
                    abs(found.energy - atoms.get_potential_energy()),
                    abs(found.energies - energies).max(),
                    abs(found.forces - forces).max(),
                    _of_stress(found, atoms),
                    np.nan if deviation is None else abs(found.deviation - deviation).max(),
                ]
            )
    largest = (max(values) for values in zip(*each, strict=True))
    return Differences(*largest, largest_force=abs(forces).max())


def _of_stress(found: Printed, atoms: Atoms) -> float:
    """Return the largest difference of a component, relative to the largest component."""
    if not atoms.pbc.all():
        return np.nan
    stress = atoms.get_stress(voigt=False)
    return float(abs(found.stress - stress).max() / abs(stress).max())


def compare(subject: Subject, ranks: tuple[int, ...], plugin: Path) -> Iterator[tuple[object, ...]]:
    """Yield a row for each structure and dtype."""
    for dtype in ("float64", "float32"):
        with tempfile.TemporaryDirectory() as name:
            model = Path(name) / "model"
            write_model_file(model, subject.members, name=subject.name, dtype=dtype, student=subject.student)
            for kind, atoms in subject.structures:
                found = differences(subject, atoms, dtype, ranks, model, plugin)
                cells = ["–" if np.isnan(value) else f"{value:.0e}" for value in found[:-1]]
                yield (subject.name, kind, f"{len(atoms):,}", f"{found.largest_force:.2g}", dtype, *cells)


def nve(entry: str, steps: int, plugin: Path) -> tuple[object, ...]:
    """Compare NVE in both; return how far the atoms are from each other, and how well either keeps the energy."""
    card = next(card for card in list_models() if card.name == entry)
    model = load_model(entry)
    atoms = card.structure.atoms()
    if not atoms.pbc.any():
        atoms.center(vacuum=8.0)
    thermalize_momenta(atoms, temperature_K=300.0, rng=np.random.default_rng(0))
    Stationary(atoms)
    marks = [steps // 100, steps // 10, steps]
    with tempfile.TemporaryDirectory() as name:
        theirs = _in_lammps(Path(name), atoms, model, marks, plugin)
    start = atoms.copy()
    atoms.calc = SchNetCalculator(model, dtype="float64")
    dynamics = VelocityVerlet(atoms, timestep=STEP_FS * units.fs)
    totals, positions = [atoms.get_total_energy()], {}
    for step in range(1, steps + 1):
        dynamics.run(1)
        totals.append(atoms.get_total_energy())
        if step in marks:
            positions[step] = atoms.get_positions()
    apart = [find_mic(theirs.positions[k] - positions[k], start.cell, start.pbc)[1].max() for k in marks]
    swings = [np.ptp(energies) / len(start) for energies in (totals, theirs.totals)]
    slopes = [1000 * np.polyfit(np.arange(steps + 1), values, 1)[0] / len(start) for values in (totals, theirs.totals)]
    return (entry, *(f"{value:.1e}" for value in (*apart, *swings, *slopes)))


class Run(NamedTuple):
    """What LAMMPS made of NVE."""

    positions: dict[int, np.ndarray]
    totals: np.ndarray


def _in_lammps(folder: Path, start: Atoms, model: SchNet, marks: list[int], plugin: Path) -> Run:
    write_model_file(folder / "model", [model], name="one", dtype="float64")
    # LAMMPS's unit of time by eV, Å and u differs from ASE's in the eighth digit; this step is exactly ASE's.
    after = ["undump d", "fix move all nve", f"timestep {STEP_FS * units.fs * MVV2E**0.5!r}", "thermo 1"]
    after += ["thermo_style custom step etotal", "thermo_modify format float %.16g"]
    for before, now in itertools.pairwise([0, *marks]):
        after += [f"run {now - before}", f"write_data {folder / f'end-{now}'} nocoeff"]
    text = lammps_input(folder, start, pair_lines(plugin, folder / "model", start), after=after)
    scaled = start.copy()
    scaled.set_velocities(convert(start.get_velocities() / MVV2E**0.5, "velocity", "metal", "ASE"))
    options = {"atom_style": "atomic", "masses": True, "velocities": True, "reduce_cell": False}
    species = sorted(set(start.get_chemical_symbols()))
    write(folder / "data", scaled, format="lammps-data", units="metal", specorder=species, **options)
    result = run_lammps(folder, text, ranks=2)
    if result.returncode:
        sys.exit(result.stdout + result.stderr)
    rows = re.findall(r"^ *(\d+) +(-?\d+\.\d+) *$", (folder / "log").read_text(), re.MULTILINE)
    totals = {int(step): float(energy) for step, energy in rows}
    positions = {}
    for mark in marks:
        (folder / f"end-{mark}").rename(folder / "end")
        positions[mark] = end(folder, start).positions
    return Run(positions, np.array([totals[step] for step in sorted(totals)]))


@click.command(help=__doc__)
@click.option("--output", type=click.Path(path_type=Path), help="Folder for lammps-exact.md.")
@click.option("--entry", "entries", multiple=True, help="[default: all]")
@click.option("--ranks", multiple=True, type=click.IntRange(1), default=RANKS, show_default=True)
@click.option("--steps", default=1000, show_default=True, type=click.IntRange(100))
def main(output: Path | None, entries: tuple[str, ...], ranks: tuple[int, ...], steps: int) -> None:
    plugin = build_plugin().path
    of_nve = []
    for entry in NVE:
        if not entries or entry in entries:
            of_nve.append(nve(entry, steps, plugin))
            print(*of_nve[-1], file=sys.stderr)
    rows = []
    for subject in subjects(entries):
        for row in compare(subject, ranks, plugin):
            rows.append(row)
            print(*row, file=sys.stderr)
        page = _page(rows, of_nve, ranks, steps)
        if output is not None:
            atomic_write(output / "lammps-exact.md", page)
    print(page)


def _page(
    rows: Sequence[Sequence[object]], of_nve: Sequence[Sequence[object]], ranks: tuple[int, ...], steps: int
) -> str:
    command = " ".join(["python -m tests.export.lammps.every_entry", *sys.argv[1:]])
    page = PAGE.format(command=command, ranks=", ".join(map(str, ranks)), steps=f"{steps:,}", one=_table(HEADER, rows))
    marks = [f"Å at {steps // 100}", f"{steps // 10}", f"{steps} steps"]
    return page + _table(("entry", *marks, "swing ASE", "swing LAMMPS", "drift ASE", "drift LAMMPS"), of_nve) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


if __name__ == "__main__":
    main()
