"""The command that gives an entry a prior after its training."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from schnet_ase.cli.common import label_options, mev, print_index_hint


@click.command("prior")
@click.argument("entry")
@click.argument("name", metavar="PRIOR", type=click.Choice(["zbl"]))
@click.option(
    "--data-root", required=True, type=click.Path(path_type=Path), help="Folder of the files that the card names."
)
@label_options
def prior(entry: str, name: str, data_root: Path, labels: dict[str, Any]) -> None:
    """Add the repulsion PRIOR, which is zbl, to all networks of ENTRY, whose weights stay, and update its card.

    Errors and calibration are measured again on the entry's own frames where the repulsion acts on them; the command
    says by how much it changes the predictions for the test frames.
    """
    from schnet_ase.data import LabelOptions
    from schnet_ase.errors import RegistryError
    from schnet_ase.registry.lookup import find_card
    from schnet_ase.training.later_prior import add_prior

    card = find_card(entry)
    if card is None:
        raise RegistryError(f"{entry}: not a registry entry; expected the name or the folder of one, with a card")
    labels.pop("exclude")
    new = add_prior(card, name, data_root, LabelOptions(**labels), command=_command())
    assert new.later_prior is not None
    print(f"{new.name}: {new.later_prior.lines()[0]}")
    networks = [("ensemble mean", card.metrics.test, new.metrics.test)]
    if card.student is not None and new.student is not None:
        networks.append(("student", card.student.test, new.student.test))
    for label, before, after in networks:
        if before is not None and after is not None:
            print(
                f"{label} on test frames: energy MAE {mev(before.energy_mae)} meV, now {mev(after.energy_mae)}; "
                f"force MAE {mev(before.force_mae)} meV/Å, now {mev(after.force_mae)}"
            )
    if new.calibration is not None and card.calibration is not None:
        again = new.calibration.energy != card.calibration.energy or new.calibration.forces != card.calibration.forces
        print(f"calibration: {'made again' if again else 'unchanged, it does not act on its frames'}")
    print(f"wrote {new.path}")
    print_index_hint(new)


def _command() -> str:
    """Return the command line for the card, with the last part of each absolute path alone."""
    return shlex.join(["schnet-ase", *(re.sub(r"^(--[\w-]+=)?/.*/(?=.)", r"\1", x) for x in sys.argv[1:])])
