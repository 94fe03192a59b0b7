"""The runs of the stability study: watched dynamics of an ensemble until a bond breaks or the time is over."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _molecule import BINS, Bonds, distance_counts
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import NoseHooverChainNVT
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta

from schnet_ase import SchNetEnsembleCalculator, UncertaintyMonitor
from schnet_ase.errors import SchNetError, StructureError
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.output.files import atomic_write
from schnet_ase.output.progress import Progress
from schnet_ase.registry.card import read_card

TIMESTEP_FS = 0.5
DAMPING_FS = 50.0  # of the Nosé-Hoover chain: 100 steps, as ASE advises
HEATING_FS = 100.0  # 1 / friction of the Langevin thermostat that heats, as in schnet-ase md
BROKEN = 0.5  # Å off its mean: a bond that is no more
BLOCK = 100  # steps: between frames of h(r), as in the paper's code; and the monitor's cool-down
TAIL = 4000  # steps, the last of a run, of which every one is kept


class Job(NamedTuple):
    """A run, and all that its result depends on."""

    entry: str
    """Its folder."""
    structure: str
    """Folder of the entry whose relaxed structure is where it starts."""
    members: tuple[str, ...]
    """SHA-256 of the entry's files."""
    threshold: float
    """eV/Å, the monitor's."""
    first: tuple[int, ...]
    second: tuple[int, ...]
    """Atoms of each bond."""
    mean: tuple[float, ...]
    """Å, of each bond over the reference frames."""
    temperature: float
    """K, at which it starts, and is kept."""
    heated_to: float | None
    """K; None: it is kept."""
    picoseconds: float
    """At most."""
    seed: int

    @property
    def file(self) -> str:
        """Name of the result's file."""
        heated = "" if self.heated_to is None else f"-to-{self.heated_to:g}K"
        return f"{self.temperature:g}K{heated}-{self.picoseconds:g}ps-seed-{self.seed}.json"


class Run(NamedTuple):
    """What came of a job, up to the collapse where there was one; step 1 is the first after the start."""

    steps: int
    collapsed: bool
    temperature: float
    """K, mean over the run."""
    above: int
    """Steps whose largest forces_deviation was above the threshold."""
    onset: int | None
    """Step from which on that was so, but for less than 50 fs at a time, until the end; None if it was not so then."""
    flag_steps: list[int]
    flag_deviations: list[float]
    """eV/Å."""
    milliseconds: float
    """A step, of the processor."""
    counts: list[int]
    """See `distance_counts`; a frame every 50 fs."""
    bond_deviation: list[float]
    """Å, that of the bond farthest from its mean, the largest of each 50 fs."""
    deviation: list[float]
    """eV/Å, forces_deviation, the largest of atoms and of each 50 fs."""
    last_bond_deviation: list[float]
    """Å, at each of the last steps."""
    last_deviation: list[float]
    """eV/Å."""

    @property
    def picoseconds(self) -> float:
        return self.steps * TIMESTEP_FS / 1000.0

    def before_end(self, step: int) -> float:
        """fs."""
        return (self.steps - step) * TIMESTEP_FS


class _Recorder:
    """An observer that keeps what a run is judged by, of every step."""

    def __init__(self, atoms: Atoms, dynamics: MolecularDynamics) -> None:
        self._atoms, self._dynamics = atoms, dynamics
        self.positions: list[Floats] = []
        self.kinetic: list[float] = []
        self.deviation: list[float] = []

    def __call__(self) -> None:
        if self._dynamics.nsteps:
            self.positions.append(self._atoms.positions.copy())
            self.kinetic.append(self._atoms.get_kinetic_energy())
            self.deviation.append(float(self._atoms.calc.results["forces_deviation"].max()))


def simulate(job: Job, report: Callable[[float], None] = lambda picoseconds: None) -> Run:
    """Run a job from its structure; `report` gets the picoseconds made so far.

    See `start_dynamics`; a job that heats has a Langevin thermostat from the first step on instead.
    """
    rng = np.random.default_rng(job.seed)
    atoms = read_card(Path(job.structure)).structure.atoms()
    atoms.calc = SchNetEnsembleCalculator(job.entry, threads=1)
    atoms.get_forces()  # a structure that is refused has not collapsed
    dynamics, degrees = start_dynamics(atoms, job.temperature, rng)
    if job.heated_to is not None:
        friction, degrees = 1.0 / (HEATING_FS * units.fs), 3 * len(atoms)
        dynamics = Langevin(
            atoms, TIMESTEP_FS * units.fs, temperature_K=job.heated_to, friction=friction, fixcm=False, rng=rng
        )
    recorder = _Recorder(atoms, dynamics)
    with tempfile.TemporaryDirectory() as folder:
        monitor = UncertaintyMonitor(
            atoms,
            threshold=job.threshold,
            file=Path(folder) / "flagged.extxyz",
            log=Path(folder) / "uncertainty.csv",
            cooldown=BLOCK,
        )
        dynamics.attach(monitor)
        dynamics.attach(recorder)
        start = time.process_time()
        collapsed, off, counts = _run_blocks(job, dynamics, recorder, report)
        seconds = time.process_time() - start
    steps = len(off)
    deviation = np.array(recorder.deviation[:steps])
    above = ~(deviation <= job.threshold)
    flags = [flag for flag in monitor.flags if flag.step <= steps]
    return Run(
        steps,
        collapsed,
        float(np.mean(recorder.kinetic[:steps])) * 2.0 / (degrees * units.kB),
        int(above.sum()),
        onset(above, BLOCK),
        [flag.step for flag in flags],
        [flag.largest for flag in flags],
        1000.0 * seconds / max(1, dynamics.nsteps),
        counts.tolist(),
        _of_blocks(off),
        _of_blocks(deviation),
        off[-TAIL:].tolist(),
        deviation[-TAIL:].tolist(),
    )


def start_dynamics(atoms: Atoms, temperature: float, rng: np.random.Generator) -> tuple[MolecularDynamics, int]:
    """A Nosé-Hoover chain at `temperature` (K) for a nonlinear molecule, and how many degrees of freedom it has there.

    The molecule gets Maxwell velocities without total momentum and rotation, and stays without. ASE's chain reckons
    with all 3N degrees of freedom; six of them would hold no energy, and the others theirs: the molecule would be
    3N / (3N - 6) times too hot, ethanol at 643 K for 500 K. The chain is asked for as much less.
    """
    n = 3 * len(atoms)
    thermalize_momenta(atoms, temperature_K=temperature, rng=rng)
    Stationary(atoms)
    ZeroRotation(atoms)
    scaled, step = temperature * (n - 6) / n, TIMESTEP_FS * units.fs
    return NoseHooverChainNVT(atoms, step, temperature_K=scaled, tdamp=DAMPING_FS * units.fs), n - 6


def _run_blocks(
    job: Job, dynamics: MolecularDynamics, recorder: _Recorder, report: Callable[[float], None]
) -> tuple[bool, Floats, Integers]:
    """Whether it collapsed, deviations of the bonds until then, and counts of distances.

    A block is looked at as a whole, so that the dynamics may go on for some steps after a collapse.
    """
    mean = np.array(job.mean)
    bonds = Bonds(np.array(job.first), np.array(job.second), mean, mean)
    total = round(1000.0 * job.picoseconds / TIMESTEP_FS)
    off: list[Floats] = []
    counts = np.zeros(BINS, dtype=np.int64)
    while dynamics.nsteps < total:
        lost = False
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                dynamics.run(min(BLOCK, total - dynamics.nsteps))
        except StructureError:  # positions that are not finite
            lost = True
        positions = np.array(recorder.positions).reshape(-1, *dynamics.atoms.positions.shape)
        recorder.positions.clear()
        block = bonds.off(positions, dynamics.atoms.numbers)
        broken = first_broken(block)
        if broken is not None or lost:
            off.append(block if broken is None else block[: broken + 1])
            return True, np.concatenate(off), counts
        off.append(block)
        counts += distance_counts(positions[-1])
        report(dynamics.nsteps * TIMESTEP_FS / 1000.0)
    return False, np.concatenate(off), counts


def first_broken(off: Floats) -> int | None:
    """The first step at which a bond is broken, or its length no number, by (T,) deviations in Å."""
    intact = off <= BROKEN  # not where it is not a number
    return None if intact.all() else int(np.argmin(intact))


def onset(above: np.ndarray, gap: int) -> int | None:
    """The step, from 1, since when `above` was true until the end, interruptions shorter than `gap` aside."""
    steps = 1 + np.flatnonzero(above)
    if not len(steps) or len(above) - steps[-1] >= gap:
        return None
    interruptions = np.flatnonzero(np.diff(steps) > gap)
    return int(steps[interruptions[-1] + 1 if len(interruptions) else 0])


def _of_blocks(values: Floats) -> list[float]:
    """The largest of each block."""
    return np.maximum.reduceat(values, np.arange(0, len(values), BLOCK)).tolist()


def read_run(job: Job, folder: Path) -> Run | None:
    """The result of a job that is done; None where it is not, or was done with another model or reference."""
    file = folder / job.file
    if not file.is_file():
        return None
    kept = json.loads(file.read_text())
    kept["job"].setdefault("structure", kept["job"]["entry"])  # runs of before it was asked for
    return Run(**kept["run"]) if kept["job"] == _identity(job) else None


def _identity(job: Job) -> object:
    """The job as JSON gives it back; where the entries lie makes no difference."""
    named = job._replace(entry=Path(job.entry).name, structure=Path(job.structure).name)
    return json.loads(json.dumps(named._asdict()))


def run_jobs(jobs: Sequence[Job], folder: Path, workers: int, progress: Progress) -> Iterator[tuple[Job, Run]]:
    """Run jobs, each in a process of its own and kept in `folder` when it is done; `progress` is in picoseconds.

    Raises
    ------
    SchNetError
        A process ended without a result.
    """
    context = get_context("spawn")
    waiting, finished = list(reversed(jobs)), 0.0
    running: list[tuple[Job, BaseProcess, Synchronized[float]]] = []
    while waiting or running:
        while waiting and len(running) < workers:
            job, made = waiting.pop(), context.Value("d", 0.0)
            process = context.Process(target=_run_in_process, args=(job, folder, made, os.getpid()), daemon=True)
            process.start()
            running.append((job, process, made))
        wait([process.sentinel for _, process, _ in running], timeout=1.0)
        progress.update(int(finished + sum(made.value for _, _, made in running)) - progress.done)
        for job, process, made in list(running):
            if process.exitcode is None:
                continue
            running.remove((job, process, made))
            run = read_run(job, folder)
            if process.exitcode or run is None:
                raise SchNetError(f"{job.file}: its process ended with status {process.exitcode} and no result")
            finished += job.picoseconds  # what is left of a run that collapsed is not to be made
            progress.update(int(finished + sum(m.value for _, _, m in running)) - progress.done)
            yield job, run


def _run_in_process(job: Job, folder: Path, made: Synchronized[float], parent: int) -> None:
    def report(picoseconds: float) -> None:
        made.value = picoseconds
        if os.getppid() != parent:  # it was killed, and may have been started again, and with it this job
            os._exit(1)

    run = simulate(job, report)
    atomic_write(folder / job.file, json.dumps({"job": _identity(job), "run": run._asdict()}))
