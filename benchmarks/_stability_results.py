"""Results of `stability.py`: a page and a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _pulls import Pull
from _report import table
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.output.figures import save_figure
from schnet_ase.stability.bonds import BROKEN
from schnet_ase.stability.runs import BLOCK, Run
from schnet_ase.stability.thermostats import TIMESTEP_FS

BINS, FARTHEST = 500, 10.0  # of h(r), Å
TAIL = 4000  # steps before the end of a run that are drawn
WARNING_FS = 50.0  # before a collapse, and
REACH = 0.3  # Å beyond the longest length in training: by then the monitor shall have flagged


class Watched(NamedTuple):
    """A run and the flags of a monitor."""

    seed: int
    run: Run
    flags: list[int]
    """Flagged steps."""
    above: np.ndarray
    """(steps,) whether the largest forces_deviation is above the threshold."""
    counts: Integers
    """Counts of `distance_counts`, with a frame every 50 fs."""

    @classmethod
    def by(cls, seed: int, run: Run, threshold: float) -> Watched:
        return cls(seed, run, run.flags(threshold), ~(run.deviation[1:] <= threshold), distance_counts(run.frames))

    def before_end(self, step: int | None) -> str:
        """Return the time from `step` to the end in fs, for a table."""
        return "none" if step is None else f"{(self.run.steps - step) * TIMESTEP_FS:.1f}"

    def warning(self) -> tuple[str, str]:
        """Return the times in fs from the first flag, and from the onset, to the end."""
        first = self.flags[0] if self.flags else None
        return self.before_end(first), self.before_end(onset(self.above, BLOCK))


class Results(NamedTuple):
    """Results so far."""

    entry: str
    thresholds: Sequence[tuple[float, float]]
    """False-flag rates and thresholds in eV/Å; the first is the monitor's."""
    temperature: float
    """Temperature of the unheated runs, K."""
    hot: float
    """Temperature of the heated runs, K."""
    calm: Sequence[Watched]
    heated: Sequence[Watched]
    pulls: Sequence[Pull]
    reference: Integers
    """Counts of distances in the reference frames."""
    noise: float
    """Error of h(r) that as many independent frames have by chance."""

    @property
    def threshold(self) -> float:
        """Threshold of the monitor, eV/Å."""
        return self.thresholds[0][1]


def markdown(results: Results, note: str, picture: str) -> str:
    """Return the page."""
    parts = [f"# Stability of `{results.entry}`, measured", note]
    rate, threshold = results.thresholds[0]
    parts.append(f"Threshold {threshold:.4f} eV/Å, from the card: false flags in {rate:.1%} of frames.")
    if results.calm:
        parts += [f"## Dynamics at {results.temperature:g} K", *_calm(results)]
    if results.heated:
        parts += [f"## Heated to {results.hot:g} K until a bond breaks", *_heated(results)]
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
            watched.seed,
            f"{run.picoseconds:.1f}",
            *(("yes", *watched.warning()) if run.collapsed else ("no", "", "")),
            f"{run.temperature:.0f}",
            f"{run.off.max():.2f}",
            f"{watched.above.mean():.2%}",
            f"{len(watched.flags) / run.picoseconds:.2f}",
            _h_error(watched.counts, results.reference),
            f"{1000.0 * run.seconds / run.steps:.2f}",
        )
        for watched in results.calm
        for run in (watched.run,)
    ]
    runs = [watched.run for watched in results.calm]
    stable = np.array([run.picoseconds for run in runs])
    sd = f" (sd {stable.std(ddof=1):.1f})" if len(stable) > 1 else ""
    together = np.sum([watched.counts for watched in results.calm], axis=0)
    share = np.concatenate([watched.above for watched in results.calm]).mean()
    summary = (
        f"Stable for {stable.mean():.1f} ps{sd}; {sum(not run.collapsed for run in runs)} of {len(runs)} did not "
        f"collapse. {share:.2%} of the steps were above the threshold. h(r) error of all runs together "
        f"{_h_error(together, results.reference)}; by chance, of as many "
        f"independent frames as the reference has, {results.noise:.3f}."
    )
    return [table(header, rows), summary]


def _heated(results: Results) -> list[str]:
    header = ("seed", "collapsed after (fs)", "first flag before (fs)", "onset before (fs)")
    rows = []
    for watched in results.heated:
        run = watched.run
        end = watched.before_end(0) if run.collapsed else f"not in {run.picoseconds:g} ps"
        rows.append((watched.seed, end, *watched.warning()))
    collapsed = [watched.run for watched in results.heated if watched.run.collapsed]
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
    """Return the time in fs from the first of the last `TAIL` steps above a threshold to the end; 0 if none is."""
    above = ~(run.deviation[1:][-TAIL:] <= threshold)
    return TIMESTEP_FS * (len(above) - 1 - int(np.argmax(above))) if above.any() else 0.0


def onset(above: np.ndarray, gap: int) -> int | None:
    """Return the step, counted from 1, since which `above` is true until the end but for gaps shorter than `gap`."""
    steps = 1 + np.flatnonzero(above)
    if not len(steps) or len(above) - steps[-1] >= gap:
        return None
    interruptions = np.flatnonzero(np.diff(steps) > gap)
    return int(steps[interruptions[-1] + 1 if len(interruptions) else 0])


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


def _h_error(counts: Integers, reference: Integers) -> str:
    """Return the error of h(r), from frames every 50 fs; a run that collapses at once has none."""
    return f"{distribution_error(counts, reference):.3f}" if counts.any() else "–"


def _of_blocks(values: Floats) -> Floats:
    """Return the largest value of each block."""
    return np.maximum.reduceat(values, np.arange(0, len(values), BLOCK))


def draw(results: Results, path: Path) -> None:
    """Plot bonds and deviations against time, at 500 K and when heated, as well as h(r) and the pulls."""
    figure = Figure(figsize=(13.5, 6.4), layout="constrained")
    (calm, heated, distances), (calm_flags, heated_flags, pulls) = figure.subplots(2, 3)
    for seed, run, flags, _, _ in results.calm:
        off, deviation, color = _of_blocks(run.off), _of_blocks(run.deviation[1:]), f"C{seed}"
        ends = np.minimum(BLOCK * np.arange(1, len(deviation) + 1), run.steps) * TIMESTEP_FS / 1000.0
        calm.plot(ends, off, lw=0.5, color=color, label=f"seed {seed}")
        calm_flags.semilogy(ends, deviation, lw=0.3, alpha=0.6, color=color)
        at = TIMESTEP_FS / 1000.0 * np.array(flags)
        calm_flags.plot(at, run.deviation[flags], "v", ms=2.5, color="tab:red", mew=0)
        if run.collapsed:
            calm.plot(run.picoseconds, off[-1], "X", color=color, mec="black")
    for seed, run, flags, _, _ in results.heated:
        before = TIMESTEP_FS * np.arange(1 - min(run.steps, TAIL), 1)
        heated.plot(before, run.off[-TAIL:], lw=0.5, color=f"C{seed}")
        heated_flags.semilogy(before, run.deviation[1:][-TAIL:], lw=0.5, color=f"C{seed}")
        for step in flags[:1]:
            at = (step - run.steps) * TIMESTEP_FS
            heated_flags.plot(at, run.deviation[step], "v", ms=5, color=f"C{seed}", mec="black", zorder=3)
    for axes, title, some in (
        (calm, f"kept at {results.temperature:g} K", results.calm),
        (heated, f"heated to {results.hot:g} K", results.heated),
    ):
        axes.set_title(title if some else "not run yet", fontsize=10)
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
    counts = np.sum([watched.counts for watched in results.calm], axis=0)
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


def distance_counts(positions: Floats) -> Integers:
    """Return how many interatomic distances of (..., N, 3) frames fall into each bin, (BINS,)."""
    first, second = np.triu_indices(positions.shape[-2], k=1)
    distances = np.linalg.norm(positions[..., first, :] - positions[..., second, :], axis=-1)
    return np.histogram(distances, BINS, (0.0, FARTHEST))[0]


def distribution(counts: Integers) -> Floats:
    """Return h(r) in 1/Å."""
    return counts / (counts.sum() * FARTHEST / BINS)


def distribution_error(counts: Integers, reference: Integers) -> float:
    """Return the mean over bins of |h - h_ref| times 10 Å, the integral of Fu et al., TMLR 2023."""
    return float(np.abs(distribution(counts) - distribution(reference)).mean() * FARTHEST)
