"""Table 4 of the report: the spread of an ensemble on frames that no fold saw, and beside it the true errors.

The report gives the smallest, largest and mean standard deviation over five models of ISO17, of the energy and of each
force component, and takes it for a measure of confidence. Here the same of ENTRY on every DATA, with what can be known
where there are labels: the errors of the mean and of each member, the rank correlation of spread and error, and how
many of the errors the half-widths of the entry's calibration hold that are to hold 90 %.

\b
    cd benchmarks
    python -m report.spread ../models/iso17-xtb test_within.db test_other.db --output ../docs/report
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from _entries import calibrated
from _report import exit_on_error, publish
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from report._fit import cell, names

from schnet_ase.data import read_dataset
from schnet_ase.errors import DataError
from schnet_ase.evaluation.agreement import COVERAGES
from schnet_ase.evaluation.evaluate import Evaluation, evaluate_dataset
from schnet_ase.evaluation.reliability import Quantity, Range, Reliability, reliability
from schnet_ase.networks.schnet import SchNet
from schnet_ase.registry.loading import locate_members
from schnet_ase.uncertainty.calibration import Calibration
from schnet_ase.uncertainty.metrics import KCAL_PER_MOL, MEV

THEIRS = {"energy": 5.08, "force x": 0.78, "force y": 0.64, "force z": 0.63}
"""Mean spread in the report, kcal/mol and kcal/mol/Å; its frames are ISO17's, its labels DFT's."""
NINETY = COVERAGES.index(0.90)
HEADER = (
    *("frames of", "of", "MAE of the mean", "MAE of one member, best to worst"),
    *("smallest spread", "largest", "mean", "mean in the report", "Spearman's ρ of spread and error"),
    "errors in the half-width of 90 %",
)
NOTE = """\
`{entry}`: energies in kcal/mol, forces in kcal/mol/Å. The spread is the standard deviation over {members} members, of a
force vector the root of the summed squares of its components', and the error beside that its length."""


class Seen(NamedTuple):
    """Frames and what the ensemble made of them."""

    name: str
    members: Sequence[Evaluation]
    mean: Evaluation
    reliability: Reliability


def see(name: str, file: Path, models: Sequence[SchNet], calibration: Calibration) -> Seen:
    """Evaluate every member.

    Raises
    ------
    DataError
        There are no energies or no forces.
    """
    evaluation = evaluate_dataset(models, read_dataset(file))
    if evaluation.reference_energy is None or evaluation.reference_forces is None:
        raise DataError(f"{file}: expected energies and forces; give frames that have both")
    members = [evaluation.member(m) for m in range(len(models))]
    return Seen(name, members, evaluation.mean(), reliability(evaluation.ensemble_errors(), calibration))


def mae(evaluation: Evaluation, quantity: str) -> float:
    """Of energies, of one component of forces, or of the length of the error of forces; eV, eV/Å."""
    assert evaluation.reference_energy is not None
    assert evaluation.reference_forces is not None
    if quantity == "energy":
        return float(np.abs(evaluation.energy - evaluation.reference_energy).mean())
    errors = evaluation.forces - evaluation.reference_forces
    if quantity == "force":
        return float(np.linalg.norm(errors, axis=1).mean())
    return float(np.abs(errors[:, "xyz".index(quantity[-1])]).mean())


def rows(seen: Seen) -> list[tuple[str, ...]]:
    """A line for the energy, each force component and the force vector."""
    energy, forces = seen.reliability.energy, seen.reliability.forces
    assert energy is not None
    assert forces is not None
    length = Range("force", float(forces.spread.min()), float(forces.spread.max()), float(forces.spread.mean()))
    quantities = {"energy": energy, "force": forces}
    return [_row(seen, spread, quantities.get(spread.name)) for spread in (*seen.reliability.ranges, length)]


def _row(seen: Seen, spread: Range, quantity: Quantity | None) -> tuple[str, ...]:
    each = sorted(mae(member, spread.name) for member in seen.members)
    agreement = None if quantity is None else quantity.conformal
    theirs = THEIRS.get(spread.name)
    return (
        *(seen.name, spread.name, cell(mae(seen.mean, spread.name), KCAL_PER_MOL, 3)),
        f"{cell(each[0], KCAL_PER_MOL, 3)} to {cell(each[-1], KCAL_PER_MOL, 3)}",
        *(cell(value, KCAL_PER_MOL, 3) for value in spread[1:]),
        cell(theirs, 1.0, 2),
        cell(None if quantity is None else quantity.raw_ranking.rho, 1.0, 2),
        "–" if agreement is None else f"{agreement.coverage[NINETY]:.1%}",
    )


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entry")
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Folder for spread.md, .csv and .png.")
@exit_on_error
def main(entry: str, data: Sequence[Path], output: Path | None) -> None:
    card, calibration = calibrated(entry)
    models = [loaded.model for loaded in locate_members(entry)]
    all_seen = [see(name, file, models, calibration) for name, file in zip(names(data), data, strict=True)]
    note = NOTE.format(entry=card.name, members=len(models))
    publish(
        "spread",
        "Spread between the members",
        HEADER,
        [row for seen in all_seen for row in rows(seen)],
        draw(all_seen),
        output,
        note,
    )


def draw(all_seen: Sequence[Seen]) -> Figure:
    """Errors against spreads, a row for each DATA, with the half-widths and the median error of each tenth."""
    figure = Figure(figsize=(9, 3.4 * len(all_seen)), layout="constrained")
    for seen, panels in zip(all_seen, figure.subplots(len(all_seen), 2, squeeze=False), strict=True):
        quantities = (seen.reliability.energy, seen.reliability.forces)
        for axes, quantity, name, unit in zip(panels, quantities, ("energy", "force"), ("meV", "meV/Å"), strict=True):
            assert quantity is not None
            factor = " × factor of the element" if name == "force" else ""
            spread, error = MEV * quantity.by_element, MEV * quantity.error
            axes.loglog(spread, error, ".", ms=2, alpha=0.3, rasterized=True)
            along = np.geomspace(spread.min(), spread.max(), 100)
            width = MEV * quantity.predictor.half_width(along / MEV, 0.9)
            axes.plot(along, width, "k-", lw=1, label="half-width, 90 %")
            tenths = np.array_split(np.argsort(spread), 10)
            middle = [(np.median(spread[t]), np.median(error[t])) for t in tenths if len(t)]
            axes.plot(*zip(*middle, strict=True), "o-", color="C1", ms=4, label="median of each tenth")
            axes.set(xlabel=f"spread of the {name}{factor} ({unit})", ylabel=f"error ({unit})", title=seen.name)
            axes.xaxis.set_minor_formatter(NullFormatter())
    figure.axes[0].legend(fontsize=8)
    return figure


if __name__ == "__main__":
    main()
