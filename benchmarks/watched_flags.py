"""When a monitor that looks every ten steps flags a run, beside one that looks at every step.

Both watch the same runs, which are those of `stability.py` that are meant to fail: a Langevin thermostat heats the
molecule to 1,500 K until a bond is 0.5 Å off, or every bond is pulled apart in steps of 0.01 Å, from the relaxed
structure and from reference frames. The student of the entry moves the atoms, or the mean of its members (`--driver
mean`). A flag is raised at the first look that finds it, and names the first uncertain frame since the look before.
DATA has the reference frames, TRAINING those that the entry was trained on.

\b
    python benchmarks/watched_flags.py rmd17-ethanol rmd17_ethanol_test_01.npz rmd17_ethanol_train_01.npz
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from _entries import calibrated
from _pulls import STEP, frames_of
from _report import conditions, exit_on_error, table
from ase import Atoms
from stability import positions_in

from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator, UncertaintyMonitor
from schnet_ase.errors import RunawayError, StructureError
from schnet_ase.monitor.flag import Flag
from schnet_ase.output.progress import Progress
from schnet_ase.registry.card import Card
from schnet_ase.stability.bonds import BROKEN, Bonds, find_bonds
from schnet_ase.stability.thermostats import TIMESTEP_FS, start

INTERVAL = 10
COLD, HOT = 500.0, 1500.0
"""Temperatures at the start and of the thermostat, K."""
LONGEST = 40_000
"""Largest number of steps of a heated run."""
Calculator = SchNetCalculator | SchNetEnsembleCalculator


class First(NamedTuple):
    """First flag of a monitor, as numbers of steps from the start."""

    frame: int
    """Step that is flagged."""
    raised: int
    """Step at which the monitor says so."""


class Seen(NamedTuple):
    """A run, or a pull, and its first flags."""

    label: int | str
    """Seed of the run, or the kind of the bond."""
    steps: int
    """Number of steps until the end: a broken bond, or atoms that the guard or the network refuses."""
    always: First | None
    """First flag of the monitor that looks at every step."""
    sometimes: First | None
    """First flag of the one that looks every `INTERVAL` steps."""

    @property
    def late(self) -> int | None:
        """Number of steps by which the second monitor is later; None if it raises no flag."""
        assert self.always is not None
        return None if self.sometimes is None else self.sometimes.raised - self.always.raised


class Watch:
    """A monitor that remembers its first flag."""

    def __init__(self, atoms: Atoms, ensemble: SchNetEnsembleCalculator | None, interval: int, folder: Path) -> None:
        files = {"file": folder / f"{interval}.extxyz", "log": folder / f"{interval}.csv"}
        self._monitor = UncertaintyMonitor(
            atoms, ensemble=ensemble, interval=interval, action=self._flagged, context=0, append=False, **files
        )
        self._calls = 0
        self.first: First | None = None

    def __call__(self) -> None:
        self._calls += 1
        self._monitor()

    def _flagged(self, flag: Flag) -> None:
        self.first = self.first or First(flag.step, self._calls - 1)


class Watched:
    """The atoms of an entry with the calculator that moves them, and what watches them."""

    def __init__(self, card: Card, driver: str, folder: Path) -> None:
        self._card, self._folder = card, folder
        self._members = SchNetEnsembleCalculator(card.path, threads=1)
        self._driver = SchNetCalculator(card.path, threads=1) if driver == "student" else self._members

    def _watches(self, atoms: Atoms) -> tuple[Watch, Watch]:
        ensemble = None if self._driver is self._members else self._members
        return Watch(atoms, ensemble, 1, self._folder), Watch(atoms, ensemble, INTERVAL, self._folder)

    def heat(self, seed: int, bonds: Bonds) -> Seen | None:
        """Heat the molecule until a bond breaks; None if none does."""
        atoms = self._card.structure.atoms()
        atoms.calc = self._driver
        dynamics = start(atoms, COLD, seed, HOT).dynamics
        watches = self._watches(atoms)
        for watch in watches:
            dynamics.attach(watch)
        try:
            for _ in dynamics.irun(LONGEST):
                if not bonds.off(atoms.positions) <= BROKEN:
                    break
            else:
                return None
        except (RunawayError, StructureError):
            pass
        return Seen(seed, dynamics.nsteps, *(watch.first for watch in watches))

    def pull(self, kind: str, frames: Sequence[Atoms]) -> Seen:
        """Pass the frames of a pulled bond by the monitors."""
        atoms = frames[0].copy()
        atoms.calc = self._driver
        watches = self._watches(atoms)
        for frame in frames:
            atoms.positions = frame.positions
            atoms.get_forces()
            for watch in watches:
                watch()
        return Seen(kind, len(frames) - 1, *(watch.first for watch in watches))


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entry")
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("training", type=click.Path(path_type=Path))
@click.option("--driver", default="student", show_default=True, type=click.Choice(["student", "mean"]))
@click.option("--seeds", default=20, show_default=True, type=click.IntRange(1), help="Number of heated runs.")
@click.option(
    "--starts", default=20, show_default=True, type=click.IntRange(0), help="Frames of DATA to pull bonds of."
)
@exit_on_error
def main(entry: str, data: Path, training: Path, driver: str, seeds: int, starts: int) -> None:
    card, _ = calibrated(entry)
    relaxed = card.structure.atoms()
    frames, trained = (positions_in(file, relaxed) for file in (data, training))
    broken, in_training = find_bonds(relaxed, frames), find_bonds(relaxed, trained, shared_protons=False)
    some = frames[np.linspace(0, len(frames) - 1, min(starts, len(frames)), dtype=int)]
    structures = [relaxed, *(Atoms(relaxed.numbers, positions) for positions in some)]
    longest = in_training.lengths(trained).max(axis=0)
    with tempfile.TemporaryDirectory() as name:
        watched = Watched(card, driver, Path(name))
        with Progress(seeds, "heated runs", "run") as progress:
            runs = []
            for seed in range(seeds):
                runs.append(watched.heat(seed, broken))
                progress.update()
        pulls = []
        with Progress(len(structures) * len(in_training.mean), "pulls", "pull") as progress:
            for bond, kind in enumerate(in_training.names()):
                for structure in structures:
                    progress.update()
                    with contextlib.suppress(ValueError):  # a ring does not part at one bond
                        _, pulled = frames_of(structure, in_training, bond, float(longest[bond]))
                        pulls.append(watched.pull(kind, pulled))
    print("\n\n".join([*_heated([run for run in runs if run is not None], seeds), *_pulled(pulls), conditions()]))


def _heated(runs: Sequence[Seen], asked: int) -> list[str]:
    header = (
        "seed",
        "bond breaks after",
        "every step: flagged before",
        "every 10: frame before",
        "raised before",
        "later",
    )
    rows = [
        (
            run.label,
            _fs(run.steps),
            *(_fs(None if step is None else run.steps - step) for step in _steps(run)),
            _late(run),
        )
        for run in runs
    ]
    warned = [[run.steps - first.raised if first else 0 for first in (run.always, run.sometimes)] for run in runs]
    medians = [_fs(statistics.median(column)) for column in zip(*warned, strict=True)]
    shortest = [_fs(min(column)) for column in zip(*warned, strict=True)]
    return [
        f"Heated runs: {len(runs)} of {asked} broke a bond. Times are in fs, before the bond broke.",
        table(header, rows),
        f"{_within(runs)} Raised before the break: median {medians[0]} fs at every step, {medians[1]} fs every ten; "
        f"shortest {shortest[0]} and {shortest[1]} fs.",
    ]


def _pulled(pulls: Sequence[Seen]) -> list[str]:
    header = ("bond", "pulls", "flagged, every step", "every 10", "raised later: median (Å)", "most (Å)")
    rows = []
    for kind in dict.fromkeys(pull.label for pull in pulls):
        some = [pull for pull in pulls if pull.label == kind]
        late = [STEP * pull.late for pull in some if pull.always is not None and pull.late is not None]
        rows.append(
            (
                kind,
                len(some),
                sum(pull.always is not None for pull in some),
                sum(pull.sometimes is not None for pull in some),
                f"{statistics.median(late):.2f}" if late else "",
                f"{max(late):.2f}" if late else "",
            )
        )
    return [f"Pulls, in steps of {STEP} Å:", table(header, rows), _within(pulls)]


def _steps(run: Seen) -> tuple[int | None, int | None, int | None]:
    always, sometimes = run.always, run.sometimes
    return (
        None if always is None else always.frame,
        None if sometimes is None else sometimes.frame,
        None if sometimes is None else sometimes.raised,
    )


def _late(run: Seen) -> str:
    return "" if run.always is None else _fs(run.late)


def _fs(steps: float | None) -> str:
    return "none" if steps is None else f"{steps * TIMESTEP_FS:g}"


def _within(seen: Sequence[Seen]) -> str:
    """Return a sentence that counts what is flagged at most one interval later than by a look at every step."""
    flagged = [one for one in seen if one.always is not None]
    soon = sum(one.late is not None and one.late < INTERVAL for one in flagged)
    missed = sum(one.sometimes is None for one in flagged)
    return (
        f"{len(flagged)} of {len(seen)} are flagged at every step; of these, {soon} are flagged within one interval "
        f"by looks every {INTERVAL} steps, {len(flagged) - soon - missed} later, {missed} not at all."
    )


if __name__ == "__main__":
    main()
