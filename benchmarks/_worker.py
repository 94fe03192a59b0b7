"""What the two sides of a benchmark have in common: a process that is given one job and answers requests.

This file also runs in SchNetPack's environment: the standard library, NumPy and ASE only.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ase import Atoms, units
from ase.io import read
from ase.md.verlet import VelocityVerlet

TIMESTEP_FS = 0.5
N_INTERACTIONS = 3
N_RBF = 32
CUTOFF = 5.0  # Å
SKIN = 1.0  # Å, of the neighbour list
ENERGY_WEIGHT, FORCE_WEIGHT = 0.01, 1.0  # of the training loss
MOLECULE_STEPS = 20


class Job(NamedTuple):
    """What a process is started for."""

    task: str
    """``"md"`` or ``"train"``."""
    frames: str
    """Trajectory file: the atoms to move, or the labelled frames of a batch."""
    weights: str
    """Folder of ``<member>.npz`` files with SchNetPack's state dicts; written by its side, read by ours."""
    n_features: int
    threads: int
    members: int
    """How many networks there are weights for (SchNetPack's side), or are evaluated (ours)."""
    way: str
    """Dynamics: the `engine` of our calculators; ``"skin"`` for a list that SchNetPack keeps. Training: how our step is
    computed, ``"full"``, ``"half"`` or ``"compiled"``."""


def read_job() -> Job:
    """The job this process was started with."""
    return Job(**json.loads(sys.argv[1]))


def start_command(python: str, script: str, job: Job) -> list[str]:
    """The command that starts a process with a job."""
    return [python, script, json.dumps(job._asdict())]


def read_atoms(job: Job) -> Atoms:
    """The atoms to move."""
    atoms = read(job.frames)
    assert isinstance(atoms, Atoms)
    return atoms


def serve(handlers: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """Answer requests, a line of JSON each, until standard input ends.

    ``{"do": name, ...}`` calls a handler with the other entries; the answer is what it returns, and the largest
    resident size this process has had, MB.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not look like an answer
    print(json.dumps({"peak_mb": peak_mb()}), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        answer = handlers[request.pop("do")](**request)
        print(json.dumps({**answer, "peak_mb": peak_mb()}), file=answers)


def peak_mb() -> float:
    """The largest resident size of this process so far, MB.

    Linux hands getrusage's on to a process that is started, which is then never below its parent's: there it is read
    from /proc.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    kib = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)
    if kib is not None:
        return kib * 1024 / 1e6
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 1e6 if sys.platform == "darwin" else size * 1024 / 1e6


class Dynamics:
    """ASE's Velocity Verlet, timed.

    Nothing holds the atoms of an untrained network together. A liquid that mixes is as much work as before; a molecule
    that flies apart is not, so it is put back every 20 steps, outside the time measured.
    """

    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms
        self._start = atoms.positions.copy(), atoms.get_momenta()
        self._integrator = VelocityVerlet(atoms, TIMESTEP_FS * units.fs)

    def run(self, steps: int) -> float:
        """Seconds that `steps` steps took."""
        seconds = 0.0
        while steps:
            n = steps if self.atoms.pbc.any() else min(steps, MOLECULE_STEPS)
            if not self.atoms.pbc.any():
                self.atoms.positions[:] = self._start[0]
                self.atoms.set_momenta(self._start[1])
            self.atoms.get_forces()
            started = time.perf_counter()
            self._integrator.run(n)
            seconds += time.perf_counter() - started
            steps -= n
        return seconds


def timed_steps(step: Callable[[], object], steps: int) -> float:
    """Seconds that `steps` calls of `step` took."""
    started = time.perf_counter()
    for _ in range(steps):
        step()
    return time.perf_counter() - started
