"""One ensemble for several molecules beside an ensemble for each.

ENTRY predicts the frames of every DATA file, frames that it was not trained on. Beside its errors stand those on the
card of the installed entry that was tested on the same file.

    python benchmarks/transferable.py rmd17-all rmd17_*_test_01.npz --output docs
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
from _report import conditions, exit_on_error, table, write_results

from schnet_ase.card import Card
from schnet_ase.data import read_dataset
from schnet_ase.errors import SchNetError
from schnet_ase.metrics import MEV, Errors
from schnet_ase.progress import Progress
from schnet_ase.registry import list_models, locate_members
from schnet_ase.training.evaluate import evaluate_dataset

MOST = 1.5
"""Times the error of a molecule's own ensemble: what is aimed at."""
HEADER = (
    "frames",
    "own ensemble",
    "energy MAE (meV)",
    "own (meV)",
    "ratio",
    "force MAE (meV/Å)",
    "own (meV/Å)",
    "ratio",
)


class Compared(NamedTuple):
    """Errors of two ensembles on the same frames; the second is None where no entry was tested on them."""

    file: str
    together: Errors
    own: Card | None

    @property
    def ratios(self) -> tuple[float | None, float | None]:
        """Of energies and of forces."""
        own = None if self.own is None else self.own.metrics.test
        if own is None:
            return None, None
        return _ratio(self.together.energy_mae, own.energy_mae), _ratio(self.together.force_mae, own.force_mae)

    def row(self) -> tuple[str, ...]:
        own = None if self.own is None else self.own.metrics.test
        energy, forces = self.ratios
        return (
            self.file,
            "" if self.own is None else self.own.name,
            _mev(self.together.energy_mae),
            _mev(None if own is None else own.energy_mae),
            "" if energy is None else f"{energy:.2f}",
            _mev(self.together.force_mae),
            _mev(None if own is None else own.force_mae),
            "" if forces is None else f"{forces:.2f}",
        )


def _ratio(ours: float | None, own: float | None) -> float | None:
    return None if ours is None or own is None else ours / own


def _mev(value: float | None) -> str:
    return "" if value is None else f"{MEV * value:.2f}"


def compare(entry: str, files: Sequence[Path]) -> list[Compared]:
    """Errors on each file.

    Raises
    ------
    SchNetError
        There is no such entry, or a file cannot be read or holds an element that it does not know.
    """
    models = [loaded.model for loaded in locate_members(entry)]
    owners = {card.data.test_sha256: card for card in list_models() if card.name != entry}
    compared = []
    with Progress(len(files), entry, "file") as progress:
        for file in files:
            dataset = read_dataset(file)
            errors = evaluate_dataset(models, dataset).mean().errors()
            compared.append(Compared(file.name, errors, owners.get(dataset.sha256)))
            progress.update()
    return compared


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entry")
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Folder for transferable.md and .csv.")
@exit_on_error
def main(entry: str, data: tuple[Path, ...], output: Path | None) -> None:
    compared = compare(entry, data)
    page = markdown(entry, compared)
    if output is not None:
        write_results(output, "transferable", page, HEADER, [c.row() for c in compared])
    print(page)


def markdown(entry: str, compared: Sequence[Compared]) -> str:
    """The page."""
    ratios = [(c.file, *c.ratios) for c in compared]
    if not any(forces is not None for _, _, forces in ratios):
        raise SchNetError("no installed entry was tested on one of these files; see schnet-ase models")
    above = [name for name, _, forces in ratios if forces is not None and forces > MOST]
    verdict = f"Force errors are more than {MOST:g} times those of the molecule's own ensemble for: {', '.join(above)}."
    if not above:
        verdict = f"No force error is more than {MOST:g} times that of the molecule's own ensemble."
    return (
        "\n\n".join(
            (
                f"`{entry}`, the mean over its members, beside an ensemble for each molecule. {verdict}",
                table(HEADER, [c.row() for c in compared]),
                conditions(),
            )
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
