"""Commands about other programs that run the models."""

from __future__ import annotations

import click


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
