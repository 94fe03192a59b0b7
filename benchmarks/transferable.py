"""One ensemble for several molecules, compared with an ensemble for each.

ENTRY predicts the frames of every DATA file, on which it must not have been trained. Its errors are compared with those
on the card of the installed entry that was tested on the same file. If an entry was trained on a file, the frames are
those that it kept for calibration; ENTRY kept the same ones if it was split `by_molecule` with the same seed.

    python benchmarks/transferable.py rmd17-all rmd17_*_test_01.npz --output docs
    python benchmarks/transferable.py rmd17-all rmd17_*_train_01.npz
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
from _report import exit_on_error, publish

from schnet_ase.data import read_dataset
from schnet_ase.errors import SchNetError
from schnet_ase.evaluation.evaluate import evaluate_dataset
from schnet_ase.evaluation.leakage import unseen_frames
from schnet_ase.output.progress import Progress
from schnet_ase.registry.loading import locate_members
from schnet_ase.registry.lookup import list_models
from schnet_ase.uncertainty.metrics import MEV, Errors

MOST = 1.5
"""Target ratio of the error to that of the molecule's own ensemble."""
HEADER = (
    *("frames", "own ensemble", "energy MAE (meV)", "own (meV)", "ratio"),
    *("force MAE (meV/Å)", "own (meV/Å)", "ratio"),
)


class Compared(NamedTuple):
    """Errors of two ensembles on the same frames; the second is None if no entry was trained on them."""

    file: str
    together: Errors
    owner: str
    own: Errors | None

    @property
    def force_ratio(self) -> float | None:
        return _ratio(self.together.force_mae, self.own.force_mae if self.own else None)

    def row(self) -> tuple[str, ...]:
        cells = [self.file, self.owner]
        for quantity in ("energy_mae", "force_mae"):
            together, own = (None if e is None else getattr(e, quantity) for e in (self.together, self.own))
            cells += [_cell(together, MEV), _cell(own, MEV), _cell(_ratio(together, own))]
        return tuple(cells)


def _ratio(together: float | None, own: float | None) -> float | None:
    return None if together is None or own is None else together / own


def _cell(value: float | None, unit: float = 1.0) -> str:
    return "" if value is None else f"{unit * value:.2f}"


def compare(entry: str, files: Sequence[Path]) -> list[Compared]:
    """Return the errors on each file.

    Raises
    ------
    SchNetError
        There is no such entry, or a file cannot be read or has an element that the entry was not trained on.
    """
    models = [loaded.model for loaded in locate_members(entry)]
    others = [card for card in list_models() if card.name != entry]
    testers = {card.data.test_sha256: card for card in others}
    learners = {card.data.sha256: card for card in others if card.metrics.calibration}
    compared = []
    with Progress(len(files), entry, "file") as progress:
        for file in files:
            dataset = read_dataset(file)
            owner, own = "", None
            if tester := testers.get(dataset.sha256):
                owner, own = tester.name, tester.metrics.test
            elif learner := learners.get(dataset.sha256):
                owner, own = learner.name, learner.metrics.calibration
                dataset = dataset._replace(frames=[dataset.frames[i] for i in unseen_frames(learner, dataset)])
            compared.append(Compared(file.name, evaluate_dataset(models, dataset).mean().errors(), owner, own))
            progress.update()
    return compared


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entry")
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Folder for transferable.md and .csv.")
@exit_on_error
def main(entry: str, data: tuple[Path, ...], output: Path | None) -> None:
    compared = compare(entry, data)
    ratios = {c.file: ratio for c in compared if (ratio := c.force_ratio) is not None}
    if not ratios:
        raise SchNetError("no installed entry was tested on one of these files; see schnet-ase models")
    above = [file for file, ratio in ratios.items() if ratio > MOST]
    verdict = f"Force errors are more than {MOST:g} times those of the molecule's own ensemble for: {', '.join(above)}."
    if not above:
        verdict = f"No force error is more than {MOST:g} times that of the molecule's own ensemble."
    note = f"`{entry}`, the mean over its members, beside an ensemble for each molecule. {verdict}"
    title = "One ensemble for several molecules"
    publish("transferable", title, HEADER, [c.row() for c in compared], None, output, note)


if __name__ == "__main__":
    main()
