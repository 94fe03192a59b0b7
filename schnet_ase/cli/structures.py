"""Structures and calculators of the commands that move atoms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from schnet_ase.errors import CheckpointError, StructureError

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator


def smiles_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--smiles", metavar="TEXT", help='Molecule to make with RDKit in place of STRUCTURE: "CCO".')(
        command
    )


def read_one(model: str, structure: Path | None, device: str | None, dtype: str, smiles: str | None = None) -> Atoms:
    """Return the last frame of the structure, or the entry's own, with the model's calculator.

    Unsuitable atoms are refused here, before anything is printed or removed.
    """
    frames, calculator = read_all(model, structure, device, dtype, smiles, index=-1)
    atoms = frames[-1]
    atoms.calc = calculator
    atoms.get_forces()
    return atoms


def read_all(
    model: str, structure: Path | None, device: str | None, dtype: str, smiles: str | None, index: str | int = ":"
) -> tuple[list[Atoms], Calculator]:
    """Return the frames of `read_frames` and the model's calculator: an ensemble if it has several members.

    A structure that cannot be read is refused before the calculator is made, which takes seconds.
    """
    from schnet_ase.calculators.ensemble import SchNetEnsembleCalculator
    from schnet_ase.calculators.single import SchNetCalculator
    from schnet_ase.registry.applicability import check_forces
    from schnet_ase.registry.loading import locate_members
    from schnet_ase.registry.lookup import owning_card

    try:
        members = locate_members(model)
    except CheckpointError as error:
        if Path(model).suffix == ".safetensors":
            raise
        raise StructureError(
            f"{model} is no model; give MODEL, a name or a .safetensors file, before STRUCTURE"
        ) from error
    if card := owning_card(model):
        check_forces(card)
    frames = read_frames(model, structure, smiles, index)
    if len(members) > 1:
        return frames, SchNetEnsembleCalculator(model, device=device, dtype=dtype)
    return frames, SchNetCalculator(members[0].path, device=device, dtype=dtype)


def read_frames(model: str, structure: Path | None, smiles: str | None, index: str | int = ":") -> list[Atoms]:
    """Return the frames of a structure, or the molecule of a SMILES, or the entry's own."""
    from schnet_ase.registry.structure import structure as entry_structure
    from schnet_ase.simulation.structures import from_smiles, read_structures

    if smiles is not None:
        if structure is not None:
            raise click.UsageError("STRUCTURE and --smiles give two structures; give one of them")
        return [from_smiles(smiles)]
    if structure is not None:
        return read_structures(structure, index)
    return [entry_structure(model)]
