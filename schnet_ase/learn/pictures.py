"""The picture of a run that learns on the fly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from schnet_ase.learn.audit import Flagged, Generation
from schnet_ase.output.figures import save_figure


def learning(generations: Sequence[Generation], flags: Sequence[Flagged], path: Path) -> None:
    """Draw a run: errors against labels, and the time of the dynamics at each flag."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    labels = [g.labels for g in generations]
    left.semilogy(labels, [1000.0 * g.force_mae for g in generations], "o-", color="tab:green", label="all, held out")
    for before, marker, label in (
        ([g.new_force_mae_before for g in generations], "v", "newest labels, before"),
        ([g.new_force_mae_after for g in generations], "^", "newest labels, after, held out"),
    ):
        points = [(n, 1000.0 * value) for n, value in zip(labels, before, strict=True) if value is not None]
        if points:
            left.plot(*zip(*points, strict=True), marker, color="0.5", ms=4, mfc="none", label=label)
    left.set(xlabel="labels", ylabel="force MAE (meV/Å)")
    left.legend(frameon=False)
    if flags:
        labels_then = [next(g.labels for g in generations if g.generation == f.generation) for f in flags]
        right.plot([f.time_fs / 1000.0 for f in flags], labels_then, "v", color="tab:red")
    right.set(xlabel="time of the flag (ps)", ylabel="labels by then")
    save_figure(figure, path)
