"""Where the time of a step of dynamics goes: the compiled call, what the calculator does around it, and ASE.

Velocity Verlet of each entry's molecule from 300 K on one thread, with one member and with all of them in turns. Timed
are every step, `calculate` within it, and the compiled call within that; printed are medians, in microseconds, how many
times as long as with one member the call takes with all, and the megabytes of weights that it goes through.

    python benchmarks/step_parts.py rmd17-ethanol rmd17-aspirin
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import click
import numpy as np
from _entries import calibrated
from _md_time import start
from _report import conditions, exit_on_error, table
from ase.md.verlet import VelocityVerlet

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator
from schnet_ase.geometry.arrays import Floats
from schnet_ase.registry.card import Card

MICRO = 1e6


class Timed:
    """A function, and how long each of its calls took."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.seconds: list[float] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        result = self._function(*args, **kwargs)
        self.seconds.append(time.perf_counter() - began)
        return result


class Run(NamedTuple):
    """A dynamics and the parts of it that are timed."""

    dynamics: VelocityVerlet
    step: Timed
    calculate: Timed
    call: Timed
    megabytes: float
    """Of weights and filter tables."""

    def parts(self) -> Floats:
        """(3,) medians in µs: the compiled call, the rest of `calculate`, the rest of the step."""
        step, calculate, call = (np.array(part.seconds) for part in (self.step, self.calculate, self.call))
        return MICRO * np.median([call, calculate - call, step - calculate], axis=1)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entries", nargs=-1, required=True)
@click.option("--rounds", default=31, show_default=True, type=click.IntRange(1))
@click.option("--steps", default=200, show_default=True, type=click.IntRange(1), help="Of a round.")
@exit_on_error
def main(entries: tuple[str, ...], rounds: int, steps: int) -> None:
    rows = []
    for entry in entries:
        card, _ = calibrated(entry)
        runs = measure(card, rounds, steps)
        one = runs[0].parts()[0]
        for members, run in zip((1, len(card.members)), runs, strict=True):
            call, around, ase = run.parts()
            times = (f"{call:.0f}", f"{call / one:.1f}", f"{around:.0f}", f"{ase:.0f}")
            rows.append((card.name, members, *times, f"{run.megabytes:.1f}"))
    header = ("entry", "members", "compiled call (µs)", "times one", "around it (µs)", "ASE (µs)", "weights (MB)")
    print(table(header, rows))
    print(f"\n{conditions()}")


def measure(card: Card, rounds: int, steps: int) -> tuple[Run, Run]:
    """One member and all, in turns."""
    runs = (
        watched(card, SchNetCalculator(card.path / card.members[0].file, threads=1)),
        watched(card, SchNetEnsembleCalculator(card.path, threads=1)),
    )
    for _ in range(rounds):
        for run in runs:
            run.dynamics.run(steps)
    return runs


def watched(card: Card, calculator: SchNetCalculator | SchNetEnsembleCalculator) -> Run:
    """Dynamics with clocks around its parts."""
    dynamics = start(card.structure.atoms(), calculator)
    evaluator = calculator._evaluator
    weights = evaluator._backend._weights
    megabytes = sum(array.nbytes for array in weights if isinstance(array, np.ndarray)) / 1e6
    run = Run(dynamics, Timed(dynamics.step), Timed(calculator.calculate), Timed(evaluator._backend), megabytes)
    dynamics.step, calculator.calculate, evaluator._backend = run.step, run.calculate, run.call
    return run


if __name__ == "__main__":
    main()
