"""Table 7 and Appendix C of the report: the shipped ensembles' force errors beside those that were published.

Every entry rmd17-MOLECULE that is installed gives the errors on its card, of 1,000 test frames. Beside them stand the
report's own, the SchNet authors', and those of other methods trained on as many frames, and qm9-u0 beside those of QM9.

\b
    cd benchmarks
    python -m report.authors --output ../docs/report
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from _report import conditions, exit_on_error, table, write_results
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from schnet_ase.errors import SchNetError
from schnet_ase.output.figures import save_figure
from schnet_ase.registry.card import Card
from schnet_ase.registry.lookup import find_card
from schnet_ase.uncertainty.metrics import KCAL_PER_MOL, MEV

MEV_PER_KCAL = MEV / KCAL_PER_MOL
"""meV of 1 kcal/mol."""
SEED: dict[str, Any] = tomllib.loads(Path(__file__).with_name("seed.toml").read_text(encoding="utf-8"))
"""The report's figures, kcal/mol and kcal/mol/Å."""
MOLECULES = (
    "aspirin",
    "azobenzene",
    "benzene",
    "ethanol",
    "malonaldehyde",
    "naphthalene",
    "paracetamol",
    "salicylic",
    "toluene",
    "uracil",
)


class Published(NamedTuple):
    """A method's force MAE of each of `MOLECULES`, in meV/Å; None where there is none."""

    method: str
    data: str
    source: str
    forces: tuple[float | None, ...]


def in_kcal(*forces: float | None) -> tuple[float | None, ...]:
    """From kcal/mol/Å."""
    return tuple(None if force is None else MEV_PER_KCAL * force for force in forces)


QUOTED = "quoted, not checked against the paper"
MACE = "Batatia et al., NeurIPS 35 (2022), Table 2"
PUBLISHED = (
    Published(
        "report, 10,000 frames, 2 epochs",
        "MD17",
        "the report",
        in_kcal(*(SEED["table2"][molecule]["forces"]["schnet"] for molecule in MOLECULES)),
    ),
    Published(
        "report, 50,000 frames, 10 epochs",
        "MD17",
        "the report",
        in_kcal(*(SEED["table7"][molecule]["forces"]["report"] for molecule in MOLECULES)),
    ),
    Published(
        "SchNet, its authors",
        "MD17",
        f"Schütt et al., NeurIPS 30 (2017), N = 1,000; {QUOTED}",
        (58.5, None, 13.4, 16.9, 28.6, 25.2, None, 36.9, 24.7, 24.3),
    ),
    Published(
        "SchNet, kgcnn",
        "rMD17",
        "training/results/README.md of aimat-lab/gcnn_keras, commit 140728c, kgcnn 2.2.2",
        in_kcal(0.9862, None, 0.2521, 0.4270, 0.6461, None, None, None, 0.5378, None),
    ),
    Published("ANI", "rMD17", MACE, (40.6, 35.4, 10.0, 13.4, 24.5, 29.2, 30.4, 29.7, 24.3, 21.4)),
    Published("GAP", "rMD17", MACE, (44.9, 24.5, 6.0, 18.1, 26.4, 16.5, 28.9, 24.7, 17.8, 17.6)),
    Published(
        "PhysNet-ens5",
        "MD17",
        f"Unke and Meuwly, J. Chem. Theory Comput. 15, 3678 (2019), five networks averaged; {QUOTED}",
        (26.2, None, None, 6.9, 13.8, 13.4, None, 14.6, 8.3, 9.5),
    ),
)


PUBLISHED_QM9 = (
    ("report, 50,000 molecules, 10 epochs", 0.60),
    (f"SchNet, its authors, 50,000 molecules; {QUOTED}", 0.59),
    (f"SchNet, its authors, 110,000 molecules; {QUOTED}", 0.31),
)
"""MAE of U0, kcal/mol."""


class Ours(NamedTuple):
    """Test errors of an entry, meV and meV/Å."""

    molecule: str
    split: str
    """Of its labelled frames, in words, and what its training started from."""
    frames: int
    """Tested."""
    energy: float
    forces: float
    member_energy: float
    """Mean over the members."""
    member_forces: float


def ours(molecule: str, card: Card) -> Ours:
    """From the card of an entry.

    Raises
    ------
    SchNetError
        It has no test errors.
    """
    tests = [card.metrics.test, *(member.test for member in card.members)]
    errors = [(t.energy_mae, t.force_mae) for t in tests if t is not None]
    pairs = [(MEV * energy, MEV * forces) for energy, forces in errors if energy is not None and forces is not None]
    if card.metrics.test is None or len(pairs) < len(tests):
        raise SchNetError(f"{card.path}: its card has no test errors; train it with data.test")
    start = "" if card.data.initial is None else f"; started from weights trained on {card.data.initial}"
    return Ours(
        molecule, card.data.split + start, card.metrics.test.n_frames, *pairs[0], *np.mean(pairs[1:], axis=0).tolist()
    )


def qm9(card: Card | None) -> list[str]:
    """Paragraphs on the energies of QM9; none without an entry that was tested there."""
    if card is None or card.metrics.test is None or card.metrics.test.energy_mae is None:
        return []
    error = KCAL_PER_MOL * card.metrics.test.energy_mae
    rows = [(f"ours, one network; {card.data.split}", error), *PUBLISHED_QM9]
    cells = [(method, f"{mae:.3f}", f"{MEV_PER_KCAL * mae:.1f}", f"{error / mae:.2f}") for method, mae in rows]
    return ["QM9, U0:", table(("method", "energy MAE (kcal/mol)", "energy MAE (meV)", "ours / theirs"), cells)]


def of(published: Published, molecule: str) -> float | None:
    return published.forces[MOLECULES.index(molecule)]


HEADER = ("molecule", "method", "data", "force MAE (meV/Å)", "force MAE (kcal/mol/Å)", "ours / theirs")


def long_rows(entries: Sequence[Ours]) -> list[tuple[str, ...]]:
    """A line for each molecule and method, ours first."""
    rows = []
    for entry in entries:
        values = [("ours", "rMD17", entry.forces), ("ours, one member", "rMD17", entry.member_forces)]
        values += [(p.method, p.data, v) for p in PUBLISHED if (v := of(p, entry.molecule)) is not None]
        rows += [
            (entry.molecule, method, data, f"{v:.2f}", f"{v / MEV_PER_KCAL:.4f}", f"{entry.forces / v:.3f}")
            for method, data, v in values
        ]
    return rows


def wide(entries: Sequence[Ours], show: Callable[[float, Ours], str]) -> str:
    """A table of molecules and methods."""
    header = ("molecule", "ours", "one member", *(p.method for p in PUBLISHED))
    rows = []
    for entry in entries:
        values = [entry.forces, entry.member_forces, *(of(p, entry.molecule) for p in PUBLISHED)]
        rows.append((entry.molecule, *("" if v is None else show(v, entry) for v in values)))
    return table(header, rows)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--output", type=click.Path(path_type=Path), help="Folder for authors.md, .csv and .png.")
@exit_on_error
def main(output: Path | None) -> None:
    cards = [(molecule, find_card(f"rmd17-{molecule}")) for molecule in MOLECULES]
    entries = [ours(molecule, card) for molecule, card in cards if card is not None]
    if not entries:
        raise SchNetError("no entry rmd17-MOLECULE is installed; see schnet-ase models")
    page = markdown(entries, find_card("qm9-u0"))
    if output is not None:
        write_results(output, "authors", page, HEADER, long_rows(entries))
        draw(entries, output / "authors.png")
    print(page)


def markdown(entries: Sequence[Ours], of_qm9: Card | None) -> str:
    """The page."""
    sources = "\n".join(f"- {p.method} ({p.data}): {p.source}." for p in PUBLISHED)
    note = (
        "Ours is the mean over the members of an entry, on its test frames; one member is the mean of the errors that\n"
        "each has alone. rMD17 labels frames of MD17's trajectories anew, with another functional and basis set, so a\n"
        "column of one beside a column of the other shows the order of errors, no more. Trained on:"
    )
    splits = "\n".join(f"- {entry.molecule}: {entry.split}" for entry in entries)
    of_each = [
        (
            entry.molecule,
            f"{entry.frames:,}",
            *(f"{v:.2f}" for v in (entry.energy, entry.member_energy)),
            *(f"{v / MEV_PER_KCAL:.4f}" for v in (entry.energy, entry.member_energy)),
            f"{SEED['table7'][entry.molecule]['energy']['report']:,.0f}",
            f"{SEED['table7'][entry.molecule]['energy']['report'] * MEV_PER_KCAL / entry.energy:,.0f}",
        )
        for entry in entries
    ]
    values = ("ours (meV)", "one member (meV)", "ours (kcal/mol)", "one member (kcal/mol)")
    header = ("molecule", "test frames", *values, "report (kcal/mol)", "report / ours")
    return (
        "\n\n".join(
            (
                "# Errors beside those that were published",
                note,
                splits,
                "Force component MAE, meV/Å:",
                wide(entries, lambda value, _: f"{value:.1f}"),
                "The same, kcal/mol/Å:",
                wide(entries, lambda value, _: f"{value / MEV_PER_KCAL:.3f}"),
                "Ours divided by theirs:",
                wide(entries, lambda value, entry: f"{entry.forces / value:.2f}"),
                "Energy MAE. The report learned total energies, on 50,000 frames:",
                table(header, of_each),
                *qm9(of_qm9),
                sources,
                "![Force errors of each molecule](authors.png)",
                conditions(),
            )
        )
        + "\n"
    )


def draw(entries: Sequence[Ours], file: Path) -> None:
    """Force errors of each molecule, one mark a method."""
    figure = Figure(figsize=(8, 1.6 + 0.6 * len(entries)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(entries))
    for method, marker in zip(PUBLISHED, "v^osDPX", strict=True):
        values = [of(method, entry.molecule) for entry in entries]
        axes.plot([np.nan if v is None else v for v in values], places, marker, mfc="none", label=method.method)
    axes.plot([e.member_forces for e in entries], places, "|", ms=14, color="k", label="ours, one member")
    axes.plot([e.forces for e in entries], places, "*", ms=12, color="k", label="ours")
    axes.set(xscale="log", xlabel="force MAE (meV/Å)", ylim=(len(entries) - 0.5, -0.5))
    axes.set_yticks(places, [entry.molecule for entry in entries])
    kcal = axes.secondary_xaxis("top", functions=(lambda v: v / MEV_PER_KCAL, lambda v: v * MEV_PER_KCAL))
    kcal.set_xlabel("kcal/mol/Å")
    for axis in (axes.xaxis, kcal.xaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside right upper", fontsize=8)
    save_figure(figure, file)


if __name__ == "__main__":
    main()
