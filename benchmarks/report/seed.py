"""Every figure of the seed report's tables beside ours, with the ratio ours / theirs.

The report's figures are in seed.toml. Ours are read from the CSV files that the other commands of this folder write and
from the cards of the shipped entries.

\b
    cd benchmarks
    python -m report.seed --output ../docs/report
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
from _report import conditions, exit_on_error, table, write_results
from report._dtnn import DTNN
from report.authors import MEV_PER_KCAL, SEED

from schnet_ase import SchNet, SchNetConfig
from schnet_ase.registry.lookup import find_card
from schnet_ase.uncertainty.metrics import KCAL_PER_MOL

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "report"
HEADER = ("table", "of", "what", "report", "ours", "ours / report")


class Figure(NamedTuple):
    """One number of the report, and ours where there is one that measures the same."""

    table: str
    of: str
    """Data set, network, fold or layer."""
    what: str
    report: float
    ours: float | None = None

    def row(self) -> tuple[str, ...]:
        if self.ours is None:
            return self.table, self.of, self.what, f"{self.report:.10g}", "–", "–"
        ours = str(self.ours) if isinstance(self.ours, int) else f"{self.ours:.4g}"
        return self.table, self.of, self.what, f"{self.report:.10g}", ours, f"{self.ours / self.report:.3g}"


def rows_of(name: str) -> list[dict[str, str]]:
    """The rows of a CSV file that another command has written."""
    with (RESULTS / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def sizes(report: Mapping[str, Any]) -> Iterable[Figure]:
    """Table 1: parameters, counted by building the networks. The report's losses are of another length of training."""
    for name, figures in report.items():
        network = SchNet(getattr(SchNetConfig, name)())
        n_parameters = sum(p.numel() for p in network.parameters())
        yield Figure("1", name, "parameters", figures["parameters"], n_parameters)
        yield Figure("1", name, f"validation loss, {figures['epochs']} epochs", figures["validation_loss"])


def baseline(report: Mapping[str, Any]) -> Iterable[Figure]:
    """Table 2, and Table 6, its differences: ours of 1,000 frames and 1,000 steps, learned from what is judged."""
    ours: dict[tuple[str, str], float] = {}
    files = {"reference": "iso17", "qm9pack": "qm9"}
    kinds = (("energies", "energy", 2), ("forces", "forces", 6))
    with (RESULTS / "baseline.csv").open(encoding="utf-8") as file:
        for cells in list(csv.reader(file))[1:]:
            data = files.get(cells[0], cells[0].removeprefix("rmd17_").removesuffix("_train_01"))
            for learned, kind, column in kinds:
                if cells[1] == learned:
                    for network, at in (("baseline", column), ("schnet", column + 2)):
                        ours[f"{data} {kind}", network] = float(cells[at]) / MEV_PER_KCAL
    for data, figures in report.items():
        for kind, pair in figures.items():
            what = {"energy": "energy loss", "forces": "force loss", "both": "loss of both"}[kind]
            first, second = ours.get((f"{data} {kind}", "baseline")), ours.get((f"{data} {kind}", "schnet"))
            yield Figure("2", data, f"{what}, baseline", pair["baseline"], first)
            yield Figure("2", data, f"{what}, SchNet", pair["schnet"], second)
            difference = None if first is None or second is None else second - first
            yield Figure("6", data, f"{what}, SchNet − baseline", pair["schnet"] - pair["baseline"], difference)


def folds(report: Mapping[str, Any]) -> Iterable[Figure]:
    """Table 3."""
    ours = {row["fold"]: row for row in rows_of("validation")}
    names = {"minimum": "minimum", "maximum": "maximum", "mean": "mean", "deviation": "standard deviation"}
    for fold, figures in report.items():
        for key, column in names.items():
            yield Figure("3", fold, f"validation loss, {column}", figures[key], float(ours[fold][column]))


def spread(report: Mapping[str, Any]) -> Iterable[Figure]:
    """Table 4: ours on other frames of the molecules that were trained on."""
    ours = {row["of"]: row for row in rows_of("spread") if row["frames of"] == "test_within"}
    for of, figures in report.items():
        for key, column in (("minimum", "smallest spread"), ("maximum", "largest"), ("mean", "mean")):
            yield Figure("4", of, f"spread, {key}", figures[key], float(ours[of][column]))


def overflow(report: Mapping[str, Any]) -> Iterable[Figure]:
    """Table 5: the last step at which all numbers were finite, with the textbook form and total energies."""
    ours = {row["largest input of"]: row["textbook, total energies"] for row in rows_of("overflow")}
    for layer, figure in report.items():
        yield Figure("5", layer, "largest input of the activation", figure, float(ours[layer]))


def errors(report: Mapping[str, Any]) -> Iterable[Figure]:
    """Table 7: ours are the shipped ensembles', trained on 950 frames of rMD17; of QM9, one network's."""
    for data, figures in report.items():
        card = find_card("qm9-u0" if data == "qm9" else f"rmd17-{data}") if data != "iso17" else None
        test = None if card is None else card.metrics.test
        for kind, pair in figures.items():
            value = None if test is None else test.energy_mae if kind == "energy" else test.force_mae
            ours = None if value is None else KCAL_PER_MOL * value
            yield Figure("7", data, f"{kind} MAE, report", pair["report"], ours)
            if "authors" in pair:
                yield Figure("7", data, f"{kind} MAE, SchNet's authors", pair["authors"], ours)


def figures() -> list[Figure]:
    """All of them, table by table."""
    parts = (sizes, baseline, folds, spread, overflow, errors)
    names = ("table1", "table2", "table3", "table4", "table5", "table7")
    found = [figure for part, name in zip(parts, names, strict=True) for figure in part(SEED[name])]
    n_parameters = sum(p.numel() for p in DTNN().parameters())
    found.append(Figure("section 4.1", "DTNN", "parameters", 10_801, n_parameters))
    return found


NOTES = {
    "1": "Parameters are counted by building the networks. The report's losses are after other numbers of epochs than "
    "any training of ours; [`sizes.md`](sizes.md) compares the three networks at equal steps and equal time.",
    "2": "Losses of the report after one (baseline) and two epochs (SchNet) on 10,000 frames; ours are MAE after 1,000 "
    "steps on 1,000 frames of rMD17, learned from energies or from forces alone. The data labelled ISO17 here are the "
    "isomers that `iso17_xtb.py` makes. A loss of both is no error and depends on the units; it has no counterpart.",
    "6": "Differences of the columns of Table 2.",
    "3": "Ours are of isomers labelled by GFN2-xTB, in (kcal/mol/Å)², and of a shorter training.",
    "4": "Ours are on later frames of the isomers that were trained on.",
    "5": "Both are of the textbook softplus and total energies, before it overflowed; ours at the last step at which "
    "every number was finite.",
    "7": "The report and SchNet's authors trained on 50,000 frames of MD17, our ensembles on 950 of rMD17, whose "
    "labels are of another functional. The report's two force figures of ISO17 contradict its Table 2, as printed.",
    "section 4.1": "DTNN is built in `benchmarks/report/_dtnn.py`.",
}


def page(found: Sequence[Figure]) -> str:
    """All tables in Markdown."""
    parts = ["# Every figure of the seed report beside ours", "Energies are in kcal/mol and forces in kcal/mol/Å."]
    for name, note in NOTES.items():
        rows = [figure.row()[1:] for figure in found if figure.table == name]
        title = f"Table {name}" if name.isdigit() else name.capitalize()
        parts += [f"## {title}", note, table(HEADER[1:], rows)]
    return "\n\n".join([*parts, conditions()]) + "\n"


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--output", type=click.Path(path_type=Path), help="Folder for seed.md and .csv.")
@exit_on_error
def main(output: Path | None) -> None:
    found = figures()
    text = page(found)
    if output is not None:
        write_results(output, "seed", text, HEADER, [figure.row() for figure in found])
    print(text)


if __name__ == "__main__":
    main()
