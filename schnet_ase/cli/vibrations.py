"""The command for vibrations and thermochemistry."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from schnet_ase.cli.common import FiniteRange, calculator_options, files_prefix, output_options, stem
from schnet_ase.cli.doubts import say_what_is_strange, with_advice
from schnet_ase.cli.relaxation import GENTLER_RELAX
from schnet_ase.cli.structures import read_one, smiles_option
from schnet_ase.errors import RunawayError, SchNetError

if TYPE_CHECKING:
    from ase import Atoms

    from schnet_ase.simulation.thermochemistry import Conditions, Kind, Thermochemistry, Value
    from schnet_ase.simulation.vibrations import Vibrations

FMAX = 1e-3
"""Largest force in eV/Å after the relaxation."""
FORCED = 0.05
"""Largest force in eV/Å at which a structure that is not relaxed passes for a stationary point."""
STEPS = 1000


@click.command()
@click.argument("model")
@click.argument("structure", required=False, type=click.Path(path_type=Path))
@click.option("--no-relax", is_flag=True, help="Take STRUCTURE as it is, such as a saddle point.")
@click.option(
    "--thermochemistry",
    "kind",
    type=click.Choice(["ideal-gas", "harmonic"]),
    help="Free molecules, or vibrations alone.  [default: ideal-gas for a free molecule]",
)
@click.option("--temperature", default=298.15, show_default=True, type=FiniteRange(0, min_open=True), help="K.")
@click.option("--pressure", default=1.01325, show_default=True, type=FiniteRange(0, min_open=True), help="bar.")
@click.option("--symmetry-number", default=1, show_default=True, type=click.IntRange(1), help="Of the molecule.")
@click.option("--spin", type=FiniteRange(0), help="Total spin: 0.5 for one electron.  [default: as STRUCTURE states]")
@smiles_option
@calculator_options
@output_options
def vibrations(
    model: str,
    structure: Path | None,
    no_relax: bool,
    kind: Kind | None,
    temperature: float,
    pressure: float,
    symmetry_number: int,
    spin: float | None,
    smiles: str | None,
    device: str | None,
    dtype: str | None,
    output: str | None,
    overwrite: bool,
) -> None:
    """Compute harmonic vibrations and thermochemistry of STRUCTURE with MODEL (default: the model's own molecule).

    The structure is relaxed to 0.001 eV/Å first. Translations and rotations are projected out. Spreads are standard
    deviations over the members of an ensemble. In the table (.csv), imaginary modes are marked; ASE's VibrationsData
    reads the Hessian (.json).
    """
    from schnet_ase.output.progress import Progress
    from schnet_ase.registry.electrons import stated_unpaired
    from schnet_ase.simulation.relaxation import optimize
    from schnet_ase.simulation.thermochemistry import Conditions, default_kind, thermochemistry
    from schnet_ase.simulation.vibrations import vibrations as compute
    from schnet_ase.simulation.vibrations import write_vibrations

    prefix = files_prefix(output, f"{stem(model)}-vibrations", (".csv", ".png", ".xyz", ".json"), overwrite)
    atoms = read_one(model, structure, device, dtype or "float64", smiles)
    print(f"{model}: vibrations of {atoms.get_chemical_formula()}")
    trained_on = say_what_is_strange(model, atoms, moving=False)
    if not no_relax:
        try:
            if not optimize(atoms, fmax=FMAX, steps=STEPS):
                raise SchNetError(
                    f"not relaxed to {FMAX} eV/Å after {STEPS} steps; start nearer to a minimum, or take --no-relax"
                )
        except RunawayError as error:
            raise with_advice(error, trained_on, atoms, GENTLER_RELAX) from error
    _say_if_forced(atoms)
    with Progress(len(atoms), "vibrations", "atom") as progress:
        found = compute(atoms, lambda done, total: progress.update(done - progress.done))
    _print_modes(found)
    spin = 0.5 * stated_unpaired(atoms) if spin is None else spin
    conditions = Conditions(kind or default_kind(found), temperature, 1e5 * pressure, symmetry_number, spin)
    _print_thermochemistry(thermochemistry(found, conditions), conditions, atoms.get_potential_energy())
    write_vibrations(found, prefix)
    print(f"wrote {prefix}.csv, {prefix}.json, {prefix}.xyz, {prefix}.png")


def _say_if_forced(atoms: Atoms) -> None:
    import numpy as np

    force = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
    if force > FORCED:
        logging.getLogger("schnet_ase").warning(
            "a force is %.3g eV/Å: these are no vibrations about a minimum or saddle point; leave out --no-relax", force
        )


def _print_modes(found: Vibrations) -> None:
    several = bool(found.members)
    print(f"  mode   wavenumber (1/cm){'   spread (1/cm)' if several else ''}   atoms that move most")
    for number, mode in enumerate(found.modes):
        value = f"{abs(mode.wavenumber):.2f}{'i' if mode.wavenumber < 0 else ' '}"
        spread = f" {mode.spread:15.2f}" if several else ""
        print(f"  {number:4d} {value:>19s}{spread}   {mode.moves(found.atoms)}")
    for number, mode in enumerate(found.imaginary):
        print(f"imaginary: mode {number}, {-mode.wavenumber:.2f}i 1/cm, moves {mode.moves(found.atoms)}")
    if len(found.imaginary) == 1:
        print("one imaginary mode: the structure is a saddle point")
    elif found.imaginary:
        print(f"{len(found.imaginary)} imaginary modes: the structure is neither a minimum nor a saddle point")


def _print_thermochemistry(values: Thermochemistry, conditions: Conditions, energy: float) -> None:
    gas = conditions.kind == "ideal-gas"
    at = f"{conditions.temperature:g} K"
    if gas:
        at = (
            f"ideal gas at {at} and {conditions.pressure / 1e5:g} bar, symmetry number {conditions.symmetry_number}, "
            f"spin {conditions.spin:g}"
        )
    print(at if gas else f"harmonic vibrations at {at}")
    print(f"energies less the potential energy, {energy:.6f} eV:")
    heat, free = ("enthalpy H", "Gibbs energy G") if gas else ("internal energy U", "Helmholtz energy F")
    print(f"  zero-point energy  {_shown(values.zero_point, 'eV')}")
    print(f"  {heat:18s} {_shown(values.enthalpy, 'eV')}")
    print(f"  entropy S          {_shown(values.entropy, 'meV/K', 1000.0)}")
    print(f"  {free:18s} {_shown(values.free_energy, 'eV')}")
    if not math.isnan(values.zero_point.spread):
        print("spreads are standard deviations over the members")


def _shown(value: Value, unit: str, factor: float = 1.0) -> str:
    spread = "" if math.isnan(value.spread) else f" ± {factor * value.spread:.5f}"
    return f"{factor * value.mean:11.5f}{spread} {unit}"
