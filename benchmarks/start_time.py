"""How long a new process takes to its first energy and forces, once the engine is compiled on this machine.

Fresh Pythons import the package, make a calculator of an entry, of one member or of all, and call it once for the
molecule on its card; printed are medians over processes, in seconds.

    python benchmarks/start_time.py rmd17-ethanol water
"""

from __future__ import annotations

import json
import subprocess
import sys

import click
import numpy as np
from _report import conditions, exit_on_error, table

from schnet_ase.errors import SchNetError
from schnet_ase.output.progress import Progress
from schnet_ase.registry.lookup import get_card

PROGRAM = """
import json, sys, time
began = time.perf_counter()
import schnet_ase
from schnet_ase.registry.lookup import get_card
imported = time.perf_counter()
card = get_card(sys.argv[1])
atoms = card.structure.atoms()
atoms.calc = getattr(schnet_ase, sys.argv[2])(card.path)
made = time.perf_counter()
atoms.get_forces()
called = time.perf_counter()
print(json.dumps([imported - began, made - imported, called - made]))
"""
KINDS = (("one", "SchNetCalculator"), ("all", "SchNetEnsembleCalculator"))


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entries", nargs=-1, required=True)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@exit_on_error
def main(entries: tuple[str, ...], rounds: int) -> None:
    rows = []
    with Progress(len(entries) * len(KINDS) * (rounds + 1), "new processes", "start") as progress:
        for entry in entries:
            get_card(entry)  # that there is one
            for members, calculator in KINDS:
                times = []
                for _ in range(rounds + 1):
                    times.append(start(entry, calculator))
                    progress.update()
                # The first may have compiled.
                columns = (f"{seconds:.2f}" for seconds in np.median(times[1:], axis=0))
                rows.append((entry, members, *columns))
    print(table(("entry", "members", "import (s)", "calculator (s)", "first call (s)"), rows))
    print(f"\n{conditions()}")


def start(entry: str, calculator: str) -> list[float]:
    """Seconds to import, to make the calculator, and of its first call, of a new process."""
    command = [sys.executable, "-c", PROGRAM, entry, calculator]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SchNetError(f"{entry}: the process failed: {done.stderr.strip().splitlines()[-1]}")
    times: list[float] = json.loads(done.stdout)
    return times


if __name__ == "__main__":
    main()
