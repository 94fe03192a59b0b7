"""The picture of a search over settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from schnet_ase.output.figures import save_figure
from schnet_ase.training.config.tune import SearchRange
from schnet_ase.tune.trials import Trial


def tuning(
    trials: Sequence[Trial], search: Mapping[str, SearchRange], importances: Mapping[str, float], path: Path
) -> None:
    """Draw a search: losses in the order of the trials and against each key, and the importances of the keys."""
    columns = min(4, 2 + len(search))
    rows = -(-(2 + len(search)) // columns)
    figure = Figure(figsize=(3.6 * columns, 0.3 + 3.2 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns).flat)
    history, importance = panels[:2]
    _losses(history, trials, [t.number for t in trials])
    best, so_far = math.inf, []
    for t in trials:
        if t.state == "complete" and t.best is not None:
            best = min(best, t.best.validation_loss)
        so_far.append(best)
    history.step([t.number for t in trials], so_far, where="post", color="tab:blue", lw=1.0, label="best so far")
    history.set(xlabel="trial")
    figure.legend(*history.get_legend_handles_labels(), loc="outside upper center", frameon=False, ncols=3)
    importance.barh(list(importances)[::-1], list(importances.values())[::-1], height=0.5, color="tab:green")
    importance.set(xlabel="importance (PED-ANOVA)", xlim=(0.0, 1.0))
    for axes, (key, values) in zip(panels[2:], search.items(), strict=False):
        if values.choices is None:
            _losses(axes, trials, [float(t.values[key]) for t in trials])
            axes.set_xscale("log" if values.log else "linear")
        else:
            _losses(axes, trials, [values.choices.index(t.values[key]) for t in trials])
            axes.set_xticks(range(len(values.choices)), [str(choice) for choice in values.choices])
        axes.set(xlabel=key)
    for axes in panels[2 + len(search) :]:
        axes.set_axis_off()
    save_figure(figure, path)


def _losses(axes: Axes, trials: Sequence[Trial], x: Sequence[float]) -> None:
    """Draw the smallest validation losses of trials; those that ended early have another mark."""
    for early, marker, color, label in ((True, "x", "0.6", "pruned or failed"), (False, "o", "tab:blue", "complete")):
        chosen = [
            (at, t.best.validation_loss)
            for at, t in zip(x, trials, strict=True)
            if t.best is not None and (t.state != "complete") == early
        ]
        axes.plot(*zip(*chosen, strict=True) if chosen else ((), ()), marker, color=color, ms=4, label=label)
    axes.set(yscale="log", ylabel="validation loss (eV²/Å²)")
