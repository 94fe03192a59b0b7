"""The command for geometry optimization, of one structure or of many."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from schnet_ase.cli.common import FiniteRange, calculator_options, files_prefix, free, output_options, stem
from schnet_ase.cli.doubts import doubts, say_what_is_strange, say_what_is_strange_of_many, with_advice
from schnet_ase.cli.lines import known
from schnet_ase.cli.structures import read_all, smiles_option
from schnet_ase.errors import RunawayError, SchNetError

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from schnet_ase.simulation.many import Settings
    from schnet_ase.simulation.relaxation import CellChange

GENTLER_RELAX = "start nearer to a minimum, such as that of another method"


@click.command()
@click.argument("model")
@click.argument("structure", required=False, type=click.Path(path_type=Path))
@click.option("--fmax", default=0.01, show_default=True, type=FiniteRange(0, min_open=True), help="eV/Å.")
@click.option("--steps", default=1000, show_default=True, type=click.IntRange(1))
@click.option("--cell", is_flag=True, help="Relax the cell too, until the stress is that of the pressure.")
@click.option("--pressure", type=FiniteRange(), help="With --cell: external pressure, GPa.  [default: 0]")
@click.option(
    "--mask", metavar="xx,yy,...", help="With --cell: which components of the strain may change.  [default: all six]"
)
@click.option("--workers", type=click.IntRange(1), help="Many structures: processes.  [default: one per core]")
@smiles_option
@calculator_options
@output_options
def relax(
    model: str,
    structure: Path | None,
    fmax: float,
    steps: int,
    cell: bool,
    pressure: float | None,
    mask: str | None,
    workers: int | None,
    smiles: str | None,
    device: str | None,
    dtype: str | None,
    output: str | None,
    overwrite: bool,
) -> None:
    """Optimize the geometry of STRUCTURE with MODEL (BFGS; default: the model's own molecule, in float64).

    An optimization whose atoms fly apart or collapse onto each other is stopped with exit status 3.

    If STRUCTURE has several frames (.sdf, .extxyz, .traj, ...), each is relaxed by itself, over the cores. The files
    are a table (.csv), the relaxed structures (.xyz) and a picture; the table names those that failed. The same command
    resumes an interrupted one.
    """
    from schnet_ase.simulation.each import KEPT
    from schnet_ase.simulation.many import Settings

    prefix = files_prefix(output, f"{stem(model)}-relax", (".xyz", ".traj", ".csv", ".png", KEPT), True)
    change = _cell_change(cell, pressure, mask)
    frames, calculator = read_all(model, structure, device, dtype or "float64", smiles)
    if len(frames) > 1:
        free(prefix, (".xyz", ".csv", ".png"), overwrite)
        settings = Settings(model, device, dtype or "float64", fmax, steps, change)
        _relax_many(frames, settings, calculator, structure, prefix, workers)
        return
    free(prefix, (".xyz", ".traj", ".csv", ".png"), overwrite)
    (atoms,) = frames
    atoms.calc = calculator
    atoms.get_forces()  # refuse unsuitable atoms before anything is printed or removed
    _relax_one(model, atoms, prefix, fmax, steps, change)


def _relax_one(model: str, atoms: Atoms, prefix: Path, fmax: float, steps: int, change: CellChange | None) -> None:
    from schnet_ase.simulation.minima import minima_deviation, single_members
    from schnet_ase.simulation.relaxation import RelaxRow, run_relax

    cell = "" if change is None else f", cell at {change.pressure:g} GPa"
    print(f"{model}: {atoms.get_chemical_formula()}, BFGS to {fmax:g} eV/Å{cell}")
    trained_on = say_what_is_strange(model, atoms, moving=False)
    more = "" if change is None else "   volume (Å³)   stress off (GPa)"
    print(f"  step       energy (eV)   largest force (eV/Å)   deviation (eV/Å){more}")

    def report(row: RelaxRow) -> None:
        deviation = known(row.max_forces_deviation_eV_per_A)
        line = f"  {row.step:4d} {row.energy_eV:17.6f} {row.max_force_eV_per_A:22.5f} {deviation:>18s}"
        print(line if change is None else f"{line} {row.volume_A3:13.3f} {row.max_stress_GPa:18.4f}", flush=True)

    try:
        rows = run_relax(atoms, prefix, fmax=fmax, steps=steps, cell=change, report=report)
    except RunawayError as error:
        raise with_advice(error, trained_on, atoms, GENTLER_RELAX) from error
    print(f"wrote {prefix}.xyz, {prefix}.traj, {prefix}.csv, {prefix}.png")
    given = atoms.calc.parameters
    apart = minima_deviation(atoms, single_members(model, given["device"], given["dtype"]), fmax)
    if math.isfinite(apart):
        print(f"the members' own minima are {apart:.3f} Å from this one (heavy atoms, root mean square)")
    for doubt in (*doubts(atoms, rows[-1].max_forces_deviation_eV_per_A), *_scattered(apart)):
        print(f"do not trust the relaxed structure: {doubt}", file=sys.stderr)


def _relax_many(
    frames: list[Atoms],
    settings: Settings,
    calculator: Calculator,
    structure: Path | None,
    prefix: Path,
    workers: int | None,
) -> None:
    from schnet_ase.output.progress import Progress
    from schnet_ase.simulation.each import label
    from schnet_ase.simulation.many import Outcome, relax_many

    print(f"{settings.model}: {len(frames)} structures of {structure}, BFGS to {settings.fmax:g} eV/Å each")
    say_what_is_strange_of_many(settings.model, frames, calculator, moving=False)
    with Progress(len(frames), "relax", "structure") as progress:

        def report(outcome: Outcome) -> None:
            progress.update()
            if outcome.status != "relaxed":
                progress.print(f"{label(outcome)} {outcome.formula} {outcome.status}: {outcome.remark}")

        outcomes = relax_many(frames, settings, prefix, workers=workers, report=report)
    relaxed = [outcome for outcome in outcomes if outcome.status == "relaxed"]
    print(f"{len(relaxed)} of {len(outcomes)} structures relaxed")
    print(f"wrote {prefix}.csv, {prefix}.xyz, {prefix}.png")
    for outcome in relaxed:
        atoms = outcome.atoms()
        atoms.calc = calculator
        far = outcome.unlike_training
        unlike = [f"its start is unlike the training frames, {far:.1f} times the usual limit"] if far > 1.0 else []
        own = (*doubts(atoms, outcome.max_forces_deviation_eV_per_A), *_scattered(outcome.minima_deviation_A))
        for doubt in (*unlike, *own):
            print(f"do not trust {label(outcome)}: {doubt}", file=sys.stderr)
    if not relaxed:
        raise SchNetError(f"none of the {len(outcomes)} structures is relaxed; {prefix}.csv says why each failed")


def _scattered(apart: float) -> list[str]:
    """Return the doubt about a structure whose members' minima are so far, in Å, from it."""
    from schnet_ase.simulation.minima import DISTINCT

    if math.isinf(apart):
        return ["relaxed on by a member alone, its atoms fly apart"]
    return [f"the members' own minima are {apart:.2f} Å from it, more than {DISTINCT} Å"] if apart > DISTINCT else []


def _cell_change(cell: bool, pressure: float | None, mask: str | None) -> CellChange | None:
    from schnet_ase.simulation.relaxation import COMPONENTS, CellChange

    if not cell:
        if pressure is not None or mask is not None:
            raise click.UsageError("--pressure and --mask belong to a cell that is relaxed; add --cell")
        return None
    if mask is None:
        return CellChange(pressure or 0.0)
    names = [name.strip() for name in mask.split(",")]
    if not set(names) <= set(COMPONENTS):
        raise click.UsageError(f"--mask {mask}; expected some of {','.join(COMPONENTS)}")
    return CellChange(pressure or 0.0, tuple(name in names for name in COMPONENTS))
