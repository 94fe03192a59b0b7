"""Compare pair style schnet with ASE for every shipped entry, and 1,000 steps of NVE; print the largest differences.

Too long for the tests; `python -m tests.export.lammps.every_entry --output docs` writes what the documentation shows.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from ase import Atoms, units
from ase.calculators.lammps import convert
from ase.geometry import find_mic
from ase.io import write
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from schnet_ase import SchNet, SchNetCalculator, SchNetEnsembleCalculator, list_models
from schnet_ase.export.lammps import build_plugin, write_model_file
from schnet_ase.output.files import atomic_write
from schnet_ase.registry.loading import locate_members
from tests.support.lammps import Printed, end, lammps_input, pair_lines, printed, run_lammps

RANKS = (1, 2, 3, 4, 8)
STRAIN = np.array([[0.02, 0.0, 0.0], [0.05, -0.03, 0.0], [-0.04, 0.06, 0.01]])
STEP_FS = 0.5
MVV2E = 1.0364269e-4
"""LAMMPS's (g/mol) (Å/ps)² in eV."""
NVE = ("entry",)
KEPT = ("swing ASE", "swing LAMMPS", "drift ASE", "drift LAMMPS")
PAGE = """# Exactness in LAMMPS, measured

`{command}` compares pair style `schnet` with ASE: the largest differences over {ranks} ranks of
the energy and the energies of the atoms (eV), the forces and the members' deviation (eV/Å) of the ensemble. Both
compute in the same dtype. The difference of the stress is relative to its largest component; LAMMPS's bar differs
from ASE's by 3e-7.

{one}

The second table follows {steps} steps of NVE at 300 K in float64, from the same start, on two ranks and in ASE: the
largest distance between an atom in LAMMPS and in ASE after as many steps, the swing of the total energy (largest less
smallest, eV per atom), and its drift (eV per atom and 1,000 steps).

"""
HEADER = ("entry", "structure", "atoms", "dtype", "energy", "energies", "forces", "stress", "deviation")


class Case(NamedTuple):
    """One structure of an entry."""

    entry: str
    kind: str
    atoms: Atoms


def cases() -> Iterator[Case]:
    """Yield the structures: an entry's own, in a strained box that is not rectangular, and water as others have it."""
    for card in list_models():
        atoms = card.structure.atoms()
        atoms.rattle(0.02, rng=np.random.default_rng(0))
        if not atoms.pbc.any():
            atoms.center(vacuum=5.0)
        yield Case(card.name, "own", atoms)
        strained = atoms.copy()
        if not atoms.pbc.any():
            strained.center(vacuum=1.5)
            strained.pbc = True
        strained.set_cell(strained.cell.array @ (np.eye(3) + STRAIN), scale_atoms=True)
        strained.wrap()
        yield Case(card.name, "strained box", strained)
        if card.name == "water":
            yield Case(card.name, "1,536 atoms", atoms.repeat(2))
            for kind, pbc in (("slab", (True, True, False)), ("cluster", (False, False, False))):
                cut = atoms.copy()
                cut.pbc = pbc
                cut.center(vacuum=5.0, axis=[axis for axis in range(3) if not pbc[axis]])
                yield Case(card.name, kind, cut)


def differences(case: Case, members: list[SchNet], dtype: str, plugin: Path) -> list[float]:
    """Return the largest differences over all numbers of ranks."""
    atoms = case.atoms.copy()
    atoms.calc = SchNetEnsembleCalculator(members, dtype=dtype)
    forces, energies = atoms.get_forces(), atoms.get_potential_energies()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model_file(folder / "model", members, name=case.entry, dtype=dtype)
        text = lammps_input(folder, atoms, pair_lines(plugin, folder / "model", atoms), members=len(members))
        each = []
        for ranks in RANKS:
            result = run_lammps(folder, text, ranks=ranks)
            if result.returncode:
                sys.exit(f"{case.entry}, {case.kind}, {ranks} ranks: {result.stdout}{result.stderr}")
            found = printed(folder, atoms, members=len(members))
            each.append(
                [
                    abs(found.energy - atoms.get_potential_energy()),
                    abs(found.energies - energies).max(),
                    abs(found.forces - forces).max(),
                    _of_stress(found, atoms),
                    abs(found.deviation - atoms.calc.results["forces_deviation"]).max(),
                ]
            )
    return [max(values) for values in zip(*each, strict=True)]


def _of_stress(found: Printed, atoms: Atoms) -> float:
    """The largest difference of a component, relative to the largest; LAMMPS's bar is another by 3e-7."""
    if not atoms.pbc.all():
        return float("nan")
    stress = atoms.get_stress(voigt=False)
    return float(abs(found.stress - stress).max() / abs(stress).max())


def nve(entry: str, steps: int, plugin: Path) -> list[tuple[object, ...]]:
    """Compare NVE in both; return how far the atoms are from each other, and how well either keeps the energy."""
    card = next(card for card in list_models() if card.name == entry)
    model = next(iter(locate_members(entry))).model
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
    return [(entry, *(f"{value:.1e}" for value in (*apart, *swings, *slopes)))]


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
    rows = [line.split() for line in (folder / "log").read_text().splitlines()]
    totals = {int(row[0]): float(row[1]) for row in rows if len(row) == 2 and row[0].isdigit()}
    positions = {}
    for mark in marks:
        (folder / f"end-{mark}").rename(folder / "end")
        positions[mark] = end(folder, start).positions
    return Run(positions, np.array([totals[step] for step in sorted(totals)]))


@click.command(help=__doc__)
@click.option("--output", type=click.Path(path_type=Path), help="Folder for lammps-exact.md.")
@click.option("--entry", "entries", multiple=True, help="[default: all]")
@click.option("--steps", default=1000, show_default=True, type=click.IntRange(100))
def main(output: Path | None, entries: tuple[str, ...], steps: int) -> None:
    plugin = build_plugin().path
    rows = []
    for case in cases():
        if entries and case.entry not in entries:
            continue
        members = [loaded.model for loaded in locate_members(case.entry)]
        for dtype in ("float64", "float32"):
            found = [f"{value:.0e}" for value in differences(case, members, dtype, plugin)]
            rows.append((case.entry, case.kind, len(case.atoms), dtype, *found))
            print(*rows[-1], file=sys.stderr)
    of_nve = [row for entry in ("rmd17-ethanol", "water") for row in nve(entry, steps, plugin)]
    command = " ".join(["python -m tests.export.lammps.every_entry", *sys.argv[1:]])
    page = PAGE.format(command=command, ranks=", ".join(map(str, RANKS)), steps=steps, one=_table(HEADER, rows))
    page += _table((*NVE, f"Å at {steps // 100}", f"{steps // 10}", f"{steps} steps", *KEPT), of_nve) + "\n"
    if output is not None:
        atomic_write(output / "lammps-exact.md", page)
    print(page)


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


if __name__ == "__main__":
    main()
