"""The cost of watched dynamics, now and in an older checkout of this repository.

The older one is run as its `md --monitor` ran: the mean of all members moves the atoms, and a monitor looks at every
step. Now the student of an entry moves them (or its best member if there is no student), and all members look every ten
steps. Each way is a process; they take turns, as in `micro.py`, and the times are processor times of velocity Verlet
through ASE on one thread. A worktree of the older commit serves as OLD, f3c7bdd for the last one before students:

\b
    git worktree add --detach ../old f3c7bdd
    python benchmarks/watched_speed.py --old ../old
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
from _report import conditions, exit_on_error, line, table
from micro import ENTRIES, Measured, Turns

import schnet_ase
from schnet_ase.errors import SchNetError

WORKER = Path(__file__).with_name("_watched.py")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Side:
    """A process with one way of running dynamics of `entry`, with the package in the folder `package`.

    Raises
    ------
    SchNetError
        The process ended, or imported another package.
    """

    def __init__(self, package: Path, entry: str, way: str) -> None:
        variables = {**os.environ, **dict.fromkeys(THREADS, "1"), "PYTHONPATH": str(package)}
        self._name = f"{way} of {entry} with {package}"
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), entry, way],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=variables,
        )
        self.seconds = 0.0
        self._answer()
        imported = self._ask(do="where")["package"]
        if not package.samefile(imported):
            raise SchNetError(f"{self._name}: imported {imported}; give --old a folder with a schnet_ase")

    def run(self, steps: int) -> None:
        """Make steps, and add their processor time to `seconds`."""
        self.seconds += self._ask(do="run", steps=steps)["seconds"]

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said:
            raise SchNetError(f"{self._name}: the process ended; see its lines above")
        answer: dict[str, Any] = json.loads(said)
        return answer


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entries", nargs=-1)
@click.option("--old", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="Checkout.")
@click.option("--rounds", default=41, show_default=True, type=click.IntRange(1), help="Number of rounds.")
@click.option("--steps", default=100, show_default=True, type=click.IntRange(1), help="Number of steps of a turn.")
@exit_on_error
def main(entries: tuple[str, ...], old: Path, rounds: int, steps: int) -> None:
    new = Path(schnet_ase.__file__).parents[1]
    turns = Turns(rounds, steps)
    header = ("entry", "watched (ms)", "member (ms)", "old, every step (ms)", "member / watched", "old / watched")
    print(table(header, ()))
    for entry in entries or ENTRIES:
        sides = [Side(new, entry, "student"), Side(new, entry, "member"), Side(old.resolve(), entry, "ensemble")]
        try:
            times = turns.take(
                [partial(side.run, steps) for side in sides], lambda sides=sides: sum(side.seconds for side in sides)
            )
        finally:
            for side in sides:
                side.close()
        print(line(Measured((entry,), times).cells(ratios=True)), flush=True)
    print(f"\n{conditions()}")


if __name__ == "__main__":
    main()
