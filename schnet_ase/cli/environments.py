"""The command that chooses the reference environments of an entry."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from schnet_ase.cli.common import label_options, print_index_hint


@click.command("environments")
@click.argument("entry")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--per-element", default=128, show_default=True, type=click.IntRange(1), help="Number for each element.")
@label_options
def environments(entry: str, data: Path, per_element: int, labels: dict[str, Any]) -> None:
    """Choose reference environments of ENTRY from its training frames DATA, and note them on its card.

    With them, md, relax, vibrations and neb say before a run how near the surroundings of each atom are to those of the
    training.
    """
    from schnet_ase.data import read_dataset
    from schnet_ase.errors import RegistryError
    from schnet_ase.evaluation.environments import add_environments
    from schnet_ase.registry.environments import read_environments
    from schnet_ase.registry.lookup import find_card
    from schnet_ase.registry.references import ENVIRONMENTS_FILE

    card = find_card(entry)
    if card is None:
        raise RegistryError(f"{entry}: not a registry entry; expected the name or the folder of one, with a card")
    dataset = read_dataset(data, **labels)
    print(f"{data}: {len(dataset.frames)} frames; {dataset.units}")
    command = shlex.join(["schnet-ase", *sys.argv[1:]])
    card = add_environments(card, dataset, per_element=per_element, command=command)
    file = card.path / ENVIRONMENTS_FILE
    counts = [len(references) for references in read_environments(file).references.values()]
    print(f"wrote {file}: {sum(counts)} environments of {len(counts)} elements, {file.stat().st_size / 1000:.0f} kB")
    print_index_hint(card)
