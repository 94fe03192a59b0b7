"""The results of `md_speed.py`: a table, a CSV file and a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _report import table
from _systems import WATER
from matplotlib.figure import Figure

from schnet_ase.output.figures import save_figure


class Row(NamedTuple):
    """One program on one system."""

    system: str
    atoms: int
    n_features: int
    threads: int
    program: str
    members: int
    engine: str
    ms_per_step: float
    spread: float
    """Of `ms_per_step` over the blocks, relative: half the distance between quartiles."""
    ns_per_day: float
    times_faster: float
    """Than SchNetPack with one network in the same run."""
    peak_mb: float
    start_mb: float
    """Before the first evaluation."""
    steps_per_list: float | None
    """Of ours; None where it made none."""
    energy_difference: float
    force_difference: float
    """From SchNetPack, relative; of the forces the largest of a component, relative to the largest."""


HEADER = ("system", "F", "threads", "program", "ms/step", "ns/day", "times faster", "peak MB", "steps/list", "ΔF rel.")


def cells(row: Row) -> tuple[object, ...]:
    """A row as printed."""
    program = f"{row.program} ({row.engine})"
    if row.members > 1:
        program += f", {row.members} members with spread"
    return (
        row.system,
        row.n_features,
        row.threads,
        program,
        f"{row.ms_per_step:.3g} ± {row.spread:.0%}",
        f"{row.ns_per_day:.3g}",
        f"{row.times_faster:.1f}",
        f"{row.peak_mb:.0f}",
        "" if row.steps_per_list is None else f"{row.steps_per_list:.0f}",
        f"{row.force_difference:.0e}",
    )


def exponents(rows: Sequence[Row]) -> list[tuple[object, ...]]:
    """How time and memory grow with the atoms of the liquid: least-squares slopes of their logarithms."""
    found = []
    for key in dict.fromkeys((r.program, r.members, r.n_features, r.threads) for r in rows):
        same = [r for r in rows if (r.program, r.members, r.n_features, r.threads) == key and r.system in WATER]
        grown = [(r.atoms, r.peak_mb - r.start_mb) for r in same if r.peak_mb - r.start_mb > 10.0]
        found.append((*key, _slope([(r.atoms, r.ms_per_step) for r in same]), _slope(grown)))
    return [row for row in found if row[-2] != "–"]


def _slope(points: Sequence[tuple[int, float]]) -> str:
    if len(points) < 2:
        return "–"
    x, y = np.log(np.array(points)).T
    return f"{np.polyfit(x, y, 1)[0]:.2f}"


def markdown(rows: Sequence[Row], note: str) -> str:
    """The results as a page."""
    parts = ["# Speed of molecular dynamics, measured", note, table(HEADER, map(cells, rows))]
    slopes = exponents(rows)
    if slopes:
        header = ("program", "members", "F", "threads", "time ∝ atoms^", "memory above start ∝ atoms^")
        parts.append(table(header, slopes))
    return "\n\n".join(parts) + "\n"


def comma_separated(rows: Sequence[Row]) -> str:
    """The results as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows(row[:7] + tuple("" if value is None else f"{value:.6g}" for value in row[7:]) for row in rows)
    return text.getvalue()


def draw(rows: Sequence[Row], path: Path) -> None:
    """Time per step and peak memory against the number of atoms, of one thread."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    programs = dict.fromkeys((r.program, r.members) for r in rows)
    for color, (program, members) in zip(("0.4", "tab:blue", "tab:orange", "tab:green"), programs, strict=False):
        for style, n_features in zip(("o-", "s--"), dict.fromkeys(r.n_features for r in rows), strict=False):
            key = (program, members, n_features, min(r.threads for r in rows))
            same = [r for r in rows if (r.program, r.members, r.n_features, r.threads) == key]
            label = f"{program}{f', {members} members' if members > 1 else ''}, F = {n_features}"
            left.loglog([r.atoms for r in same], [r.ms_per_step for r in same], style, color=color, label=label, ms=4)
            right.loglog([r.atoms for r in same], [r.peak_mb for r in same], style, color=color, ms=4)
    left.set(xlabel="atoms", ylabel="time per MD step (ms)")
    right.set(xlabel="atoms", ylabel="peak memory of the process (MB)")
    left.legend(frameon=False, fontsize=8)
    save_figure(figure, path)
