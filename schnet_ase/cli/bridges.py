"""Commands about other programs that run the models."""

from __future__ import annotations

from pathlib import Path

import click

from schnet_ase.cli.common import files_prefix, stem

SUFFIX = ".pt"


@click.group()
def ipi() -> None:
    """Run models in i-PI: path-integral dynamics and committees."""


@ipi.command("path")
def path() -> None:
    """Print the path of the driver, for i-PI's --pes_path and <pes_path>."""
    # Importing the driver would need i-PI, which may be in another environment.
    from importlib.util import find_spec

    spec = find_spec("schnet_ase.bridges.ipi_driver")
    assert spec is not None
    print(spec.origin)


@click.group()
def export() -> None:
    """Write models in other formats."""


@export.command("metatomic")
@click.argument("model")
@click.option("--members", default="all", show_default=True, metavar="all|student|fold-K", help="Networks to write.")
@click.option("--dtype", default="float64", show_default=True, type=click.Choice(["float32", "float64"]))
@click.option("--output", help="The file, or a folder to put it in.  [default: MODEL.pt]")
@click.option("--overwrite", is_flag=True, help="Replace a file that exists.")
def metatomic(model: str, members: str, dtype: str, output: str | None, overwrite: bool) -> None:
    """Write MODEL (an entry, a folder or a file) for metatomic's interfaces: ASE, i-PI, LAMMPS and others."""
    from schnet_ase.errors import ExportError
    from schnet_ase.registry.loading import load_model, locate_members

    try:
        from schnet_ase.export.metatomic import write_metatomic
    except ImportError as error:
        raise ExportError(f"{error.name} is not installed; pip install 'schnet_ase[metatomic]'") from error

    file = Path(f"{files_prefix(output, stem(model), (SUFFIX,), overwrite)}{SUFFIX}")
    if members == "all":
        name, networks = model, [loaded.model for loaded in locate_members(model)]
    else:
        name = f"{model}/{members}"
        networks = [load_model(name)]
    write_metatomic(file, networks, name=name, dtype=dtype)
    print(f"{len(networks)} network{'s' if len(networks) > 1 else ''} in {file}; in ASE:")
    print(f"atoms.calc = MetatomicCalculator({str(file)!r})  # from metatomic_ase")
