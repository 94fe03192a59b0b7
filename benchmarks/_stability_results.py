"""The results of `stability.py`: a page and a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _molecule import BINS, FARTHEST, distribution, distribution_error
from _pulls import Pull
from _report import table
from _runs import BLOCK, BROKEN, TIMESTEP_FS, Job, Run
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.output.figures import save_figure

WARNING_FS = 50.0  # before a collapse, and
REACH = 0.3  # Å beyond the longest length in training: by then the monitor shall have flagged


class Results(NamedTuple):
    """What there is so far."""

    entry: str
    thresholds: Sequence[tuple[float, float]]
    """False-flag rate and eV/Å; the first is the monitor's."""
    calm: Sequence[tuple[Job, Run]]
    heated: Sequence[tuple[Job, Run]]
    pulls: Sequence[Pull]
    reference: Integers
    """Counts of distances in the reference frames."""
    noise: float
    """What h(r) of that many independent frames is off by chance."""

    @property
    def threshold(self) -> float:
        """eV/Å, the monitor's."""
        return self.thresholds[0][1]


def markdown(results: Results, note: str, picture: str) -> str:
    """The page."""
    parts = [f"# Stability of `{results.entry}`, measured", note]
    rate, threshold = results.thresholds[0]
    parts.append(f"Threshold {threshold:.4f} eV/Å, from the card: false flags in {rate:.1%} of frames.")
    if results.calm:
        parts += [f"## Dynamics at {results.calm[0][0].temperature:g} K", *_calm(results)]
    if results.heated:
        parts += [f"## Heated to {results.heated[0][0].heated_to:g} K until a bond breaks", *_heated(results)]
    parts += ["## Bonds pulled apart", *_pulled(results), f"![The runs, the distances and the pulls]({picture})"]
    return "\n\n".join(parts) + "\n"


def _calm(results: Results) -> list[str]:
    header = (
        "seed",
        "stable (ps)",
        "collapsed",
        "first flag before (fs)",
        "onset before (fs)",
        "mean T (K)",
        "bond off by (Å)",
        "above threshold",
        "flags/ps",
        "h(r) error",
        "CPU ms/step",
    )
    rows = [
        (
            job.seed,
            f"{run.picoseconds:.1f}",
            *(("yes", *_warning(run)) if run.collapsed else ("no", "", "")),
            f"{run.temperature:.0f}",
            f"{max(run.bond_deviation):.2f}",
            f"{run.above / run.steps:.2%}",
            f"{len(run.flag_steps) / run.picoseconds:.2f}",
            _h_error(run.counts, results.reference),
            f"{run.milliseconds:.2f}",
        )
        for job, run in results.calm
    ]
    runs = [run for _, run in results.calm]
    stable = np.array([run.picoseconds for run in runs])
    sd = f" (sd {stable.std(ddof=1):.1f})" if len(stable) > 1 else ""
    share = sum(run.above for run in runs) / sum(run.steps for run in runs)
    summary = (
        f"Stable for {stable.mean():.1f} ps{sd}; {sum(not run.collapsed for run in runs)} of {len(runs)} did not "
        f"collapse. {share:.2%} of the steps were above the threshold. h(r) error of all runs together "
        f"{_h_error(np.sum([run.counts for run in runs], axis=0), results.reference)}; by chance, of as many "
        f"independent frames as the reference has, {results.noise:.3f}."
    )
    return [table(header, rows), summary]


def _heated(results: Results) -> list[str]:
    header = ("seed", "collapsed after (fs)", "first flag before (fs)", "onset before (fs)")
    rows = []
    for job, run in results.heated:
        end = f"{run.before_end(0):.1f}" if run.collapsed else f"not in {run.picoseconds:g} ps"
        rows.append((job.seed, end, *_warning(run)))
    collapsed = [run for _, run in results.heated if run.collapsed]
    if not collapsed:
        return [table(header, rows)]
    early = f"{WARNING_FS:g} fs before or earlier"
    header_by_rate = ("false-flag rate", "threshold (eV/Å)", early, "median (fs)", "shortest (fs)")
    by_rate = []
    for rate, threshold in results.thresholds:
        before = [warning(run, threshold) for run in collapsed]
        share = f"{sum(fs >= WARNING_FS for fs in before)} of {len(before)}"
        by_rate.append((f"{rate:.1%}", f"{threshold:.4f}", share, f"{np.median(before):.0f}", f"{min(before):.0f}"))
    return [
        table(header, rows),
        f"First frame above a threshold, before a bond was {BROKEN} Å off:",
        table(header_by_rate, by_rate),
    ]


def warning(run: Run, threshold: float) -> float:
    """fs between the first of the kept last steps that is above a threshold and the end; 0 where there is none."""
    above = ~(np.array(run.last_deviation) <= threshold)
    return TIMESTEP_FS * (len(above) - 1 - int(np.argmax(above))) if above.any() else 0.0


def _pulled(results: Results) -> list[str]:
    header = ("bond", "pulls", "flagged", "relaxed (Å)", "thermal: median (Å)", "latest (Å)", f"before +{REACH} Å")
    rows = []
    for kind in dict.fromkeys(pull.kind for pull in results.pulls):
        at = [(pull.start, pull.flagged_at(results.threshold)) for pull in results.pulls if pull.kind == kind]
        thermal = [beyond for start, beyond in at if start]
        rows.append(
            (
                kind,
                len(at),
                sum(math.isfinite(beyond) for _, beyond in at),
                " ".join(f"{beyond:+.2f}" for start, beyond in at if not start),
                f"{np.median(thermal):+.2f}" if thermal else "",
                f"{max(beyond for _, beyond in at):+.2f}",
                f"{sum(beyond < REACH for _, beyond in at)} of {len(at)}",
            )
        )
    return [table(header, rows), "Å beyond that bond's longest length in the training frames, at the first flag."]


def _h_error(counts: Sequence[int], reference: Integers) -> str:
    """Of frames every 50 fs, of which a run that collapses at once has none."""
    return f"{distribution_error(np.array(counts), reference):.3f}" if np.any(counts) else "–"


def _warning(run: Run) -> tuple[str, str]:
    """fs from the first flag, and from the onset, to the end."""
    first = f"{run.before_end(run.flag_steps[0]):.1f}" if run.flag_steps else "none"
    return first, "none" if run.onset is None else f"{run.before_end(run.onset):.1f}"


def draw(results: Results, path: Path) -> None:
    """Bonds and deviations against time, at 500 K and when heated, and h(r) and the pulls."""
    figure = Figure(figsize=(13.5, 6.4), layout="constrained")
    (calm, heated, distances), (calm_flags, heated_flags, pulls) = figure.subplots(2, 3)
    for job, run in results.calm:
        ends = np.minimum(BLOCK * np.arange(1, len(run.deviation) + 1), run.steps) * TIMESTEP_FS / 1000.0
        calm.plot(ends, run.bond_deviation, lw=0.5, color=f"C{job.seed}", label=f"seed {job.seed}")
        calm_flags.semilogy(ends, run.deviation, lw=0.3, alpha=0.6, color=f"C{job.seed}")
        flags = np.array(run.flag_steps) * TIMESTEP_FS / 1000.0
        calm_flags.plot(flags, run.flag_deviations, "v", ms=2.5, color="tab:red", mew=0)
        if run.collapsed:
            calm.plot(run.picoseconds, run.bond_deviation[-1], "X", color=f"C{job.seed}", mec="black")
    for job, run in results.heated:
        before = -TIMESTEP_FS * np.arange(len(run.last_deviation))[::-1]
        heated.plot(before, run.last_bond_deviation, lw=0.5, color=f"C{job.seed}")
        heated_flags.semilogy(before, run.last_deviation, lw=0.5, color=f"C{job.seed}")
        for step, deviation in zip(run.flag_steps[:1], run.flag_deviations, strict=False):
            heated_flags.plot(-run.before_end(step), deviation, "v", ms=5, color=f"C{job.seed}", mec="black", zorder=3)
    for axes, title in ((calm, "kept at {0.temperature:g} K"), (heated, "heated to {0.heated_to:g} K")):
        some = results.calm if axes is calm else results.heated
        axes.set_title(title.format(some[0][0]) if some else "not run yet", fontsize=10)
        _line(axes, BROKEN, "collapse")
        axes.set(ylabel="bond off its mean, largest (Å)", ylim=(0.0, 1.5 * BROKEN))
        axes.legend(frameon=False, fontsize=7, ncols=3, loc="upper left")
    for axes in (calm_flags, heated_flags):
        _line(axes, results.threshold, "threshold")
        axes.set(ylabel="forces_deviation, largest (eV/Å)")
        axes.legend(frameon=False, fontsize=7)
    calm_flags.set(xlabel="time (ps); ▾ flags")
    heated_flags.set(xlabel="time before the end (fs); ▾ first flag", xlim=(-500.0, 10.0))
    heated.set_xlim(-500.0, 10.0)
    _draw_distances(distances, results)
    _draw_pulls(pulls, results)
    save_figure(figure, path)


def _draw_distances(axes: Axes, results: Results) -> None:
    r: Floats = FARTHEST / BINS * (np.arange(BINS) + 0.5)
    axes.plot(r, distribution(results.reference), color="0.7", lw=3.0, label="reference frames")
    counts = np.sum([run.counts for _, run in results.calm], axis=0)
    if np.any(counts):
        axes.plot(r, distribution(counts), color="tab:blue", lw=0.8, label="dynamics")
    some = np.flatnonzero(results.reference)
    axes.set(xlabel="r (Å)", ylabel="h(r) (1/Å)", xlim=(r[some[0]] - 0.2, r[some[-1]] + 0.2))
    axes.legend(frameon=False, fontsize=8)


def _draw_pulls(axes: Axes, results: Results) -> None:
    kinds = list(dict.fromkeys(pull.kind for pull in results.pulls))
    for pull in results.pulls:
        color, relaxed = f"C{kinds.index(pull.kind)}", pull.start == 0
        axes.semilogy(
            pull.beyond, pull.deviation, color=color, lw=1.6 if relaxed else 0.4, alpha=1.0 if relaxed else 0.4
        )
    for number, kind in enumerate(kinds):
        axes.plot([], [], color=f"C{number}", label=kind)
    _line(axes, results.threshold, "threshold")
    axes.axvline(REACH, color="0.5", lw=0.8, ls=":")
    axes.set(
        xlabel="bond longer than ever in training by (Å); thick: relaxed",
        ylabel="forces_deviation, largest (eV/Å)",
        xlim=(-0.4, None),
    )
    axes.legend(frameon=False, fontsize=7)


def _line(axes: Axes, value: float, label: str) -> None:
    axes.axhline(value, color="black", lw=0.9, ls="--", label=label, zorder=3)
