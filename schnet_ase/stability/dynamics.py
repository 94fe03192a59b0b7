"""Dynamics of an entry until a bond breaks or the time is over, saved regularly so that a killed run resumes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from schnet_ase.calculators.ensemble import SchNetEnsembleCalculator
from schnet_ase.calculators.single import SchNetCalculator
from schnet_ase.errors import StructureError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.stability.bonds import first_broken
from schnet_ase.stability.runs import BLOCK, Job, Kept, Run, read_kept, write_kept
from schnet_ase.stability.thermostats import Thermostatted, resume, start

STATE_STEPS, STATE_SECONDS = 500, 10.0
"""Number of steps, and least number of seconds, between the saved states that a run resumes from."""


def simulate(
    job: Job, folder: Path, threads: int | None = 1, report: Callable[[int], None] = lambda steps: None
) -> Run:
    """Run a job, or the rest of it if it was interrupted.

    Parameters
    ----------
    job
        The run to make.
    folder
        Folder that keeps the run.
    threads
        Number of threads; None: the calculator's default.
    report
        Callback that receives the number of steps made so far.

    Raises
    ------
    SchNetError
        The entry cannot be loaded or refuses the structure.
    """
    kept = read_kept(job, folder)
    if kept is not None and (done := kept.finished(job)) is not None:
        return done
    atoms = job.structure.atoms()
    calculator = SchNetEnsembleCalculator if len(job.members) > 1 else SchNetCalculator
    atoms.calc = calculator(job.entry, threads=threads)
    atoms.get_forces()  # a structure that the model refuses raises here; inside the run it would count as a collapse
    if kept is None or not kept.state.step:
        return _Recorder(job, folder, start(atoms, job.temperature, job.seed, job.heated_to), None).run(report)
    resumed = resume(atoms, job.temperature, kept.state, job.heated_to)
    return _Recorder(job, folder, resumed, kept.run.first(kept.state.step, job.spacing)).run(report)


class _Recorder:
    """Runs a job and records, for every step, the quantities that stability is judged by."""

    def __init__(self, job: Job, folder: Path, thermostatted: Thermostatted, before: Run | None) -> None:
        self._job, self._folder, self._thermostatted = job, folder, thermostatted
        self._dynamics, self._atoms = thermostatted.dynamics, thermostatted.dynamics.atoms
        self._steps, self._collapsed = self._dynamics.nsteps, False
        self._off = [] if before is None else [before.off]
        self._deviation: list[float] = [] if before is None else before.deviation.tolist()
        self._kinetic: list[float] = [] if before is None else before.kinetic.tolist()
        self._frames: list[Floats] = [] if before is None else list(before.frames)
        self._looks: list[Floats] = []
        self._last = self._atoms.get_positions()
        self._began = time.process_time() - (0.0 if before is None else before.seconds)

    def run(self, report: Callable[[int], None]) -> Run:
        """Run to the end or to a collapse, in whole blocks; steps of a block after a collapse are discarded."""
        job, dynamics = self._job, self._dynamics
        dynamics.attach(self._look)
        state, saved = self._thermostatted.state(), time.monotonic()
        try:
            report(self._steps)
            while self._steps < job.steps and not self._collapsed:
                if self._steps % STATE_STEPS == 0:
                    # A run that resumes here starts without a neighbour list. Discard it here too, so that sums are
                    # rounded in the same way.
                    self._atoms.calc.reset()
                    state = self._thermostatted.state()
                    if time.monotonic() - saved > STATE_SECONDS:
                        write_kept(Kept(self._made(), state), self._job, self._folder)
                        saved = time.monotonic()
                self._block(min(BLOCK, job.steps - self._steps))
                report(self._steps)
        except BaseException:  # Ctrl-C, or the process that waits for this one has ended
            write_kept(Kept(self._made().first(state.step, job.spacing), state), job, self._folder)
            raise
        write_kept(Kept(self._made(), state), self._job, self._folder)
        return self._made()

    def _look(self) -> None:
        step = self._dynamics.nsteps
        deviation = self._atoms.calc.results.get("forces_deviation")
        if deviation is not None:
            self._deviation.append(float(deviation.max()))
        self._kinetic.append(self._atoms.get_kinetic_energy())
        if step and step % self._job.spacing == 0:
            self._looks.append(self._atoms.get_positions())

    def _block(self, steps: int) -> None:
        self._looks.clear()
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                self._dynamics.run(steps)
        except StructureError:  # positions are not finite, or two atoms coincide
            self._collapsed = True
        looks = np.array(self._looks).reshape(-1, *self._last.shape)
        off, self._steps = self._job.bonds.off(looks), len(self._kinetic) - 1
        broken = first_broken(off)
        if broken is not None:
            before = sum(len(block) for block in self._off)
            self._collapsed, self._steps = True, (before + broken + 1) * self._job.spacing
            off, looks = off[: broken + 1], looks[: broken + 1]
        self._off.append(off)
        if len(looks):
            self._last = looks[-1]
        if steps == BLOCK and not self._collapsed:
            self._frames.append(self._atoms.get_positions())

    def _made(self) -> Run:
        """Return the run up to the last whole block."""
        return Run(
            self._steps,
            self._collapsed,
            self._thermostatted.degrees,
            np.concatenate([np.empty(0), *self._off]),
            np.array(self._deviation[: self._steps + 1]),
            np.array(self._kinetic[: self._steps + 1]),
            np.array(self._frames).reshape(-1, *self._last.shape),
            self._last,
            time.process_time() - self._began,
        )
