"""Watching a run: which frames the ensemble is not to be believed on, written down before the run goes wrong."""

from __future__ import annotations

import math
import os
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units

from schnet_ase.errors import MonitorError, RunawayError, UncertaintyExceeded
from schnet_ase.geometry.motion import degrees_of_freedom
from schnet_ase.monitor.arguments import check_counts, thresholds_of, watched_atoms
from schnet_ase.monitor.dynamics import GUARDED, Ending, calling_dynamics, time_of
from schnet_ase.monitor.ensemble import driven, ensemble_of, with_spread
from schnet_ase.monitor.files import Frame, append_frames, check_frames_file, open_log
from schnet_ase.monitor.flag import Flag, Verdict
from schnet_ase.monitor.guard import Guard
from schnet_ase.monitor.statistics import look

HEADER = b"step,time_fs,temperature_K,max_forces_deviation_eV_per_A,atom,status\n"
HELPS = (
    "take a lower temperature, shorter steps or a relaxed start, or teach the ensemble these frames (schnet-ase learn)"
)


class UncertaintyMonitor:
    """An observer that flags uncertain frames of a dynamics or an optimization: ``dyn.attach(monitor)``.

    Every `interval` steps the ensemble looks: the largest ``forces_deviation`` of the watched atoms is compared with a
    threshold. Where it is above, the ensemble looks at the frames since its last look too. The first frame above the
    threshold is written to `file` at once, whole, with the frames that led there; then `cooldown` steps pass before
    another is. Every frame that was looked at gets a row in `log`. A run that has left the world is ended.

    Parameters
    ----------
    atoms
        Those that move, with a `SchNetEnsembleCalculator`, a sum of ASE's that holds one (``SumCalculator([ensemble,
        dispersion])`` and the like), or any calculator where `ensemble` is given: a student, one network, DFT. Atoms
        held by ``FixAtoms``, or by ``FixCartesian`` in all directions, when the monitor is made are not watched; the
        temperatures are of the masses at that time, and of all degrees of freedom but those that constraints say they
        remove (ASE's ``MirrorForce`` and the like do not). At constant energy,
        `schnet_ase.simulation.dynamics.run_md` leaves out the motion that such a run keeps.
    ensemble
        The ensemble that looks, where the calculator that moves the atoms neither is nor holds one: a calculator, or a
        registry name or folder as `SchNetEnsembleCalculator` takes it. It computes at each look alone, with the
        neighbour list of the calculator that moves the atoms where that is ours. The deviation is the ensemble's own in
        any case.
    threshold
        ``(lo, hi)`` in eV/Å, DP-GEN's classes: up to lo accurate, up to hi candidate, above failed and not saved. One
        number is lo, without hi. ``"auto"``: lo is what one frame in 1,000 like the calibration frames exceeds, hi five
        times that; for another rate give ``atoms.calc.calibration.threshold(rate)``.
    interval
        Steps between looks. The frames between two looks are kept, with what the calculator that moves the atoms says
        of them: a look that finds a frame above the threshold goes through them, so that a flag is at the step where an
        `interval` of 1 has it. A frame that is above the threshold while both looks around it are not is missed.
    action
        ``"write"``: only that; ``"stop"``: then raise `UncertaintyExceeded`; or a function of the `Flag`, called then.
        The atoms are then where the look is, up to ``interval - 1`` steps behind the flagged frame.
    file
        extxyz, appended to. Frames carry ``step``, ``time_fs``, ``temperature_K``, ``schnet_status`` (``"context"``,
        ``"candidate"``, or ``"good"``: the last one before a run was ended), ``schnet_energy_std`` and per atom
        ``schnet_forces_deviation``, and where the calculator that moves the atoms is calibrated the half-widths of its
        errors, ``schnet_energy_uncertainty`` and ``schnet_forces_uncertainty``. Energy, forces and stress are
        those of the calculator that moves the atoms; a network's are no labels to train on. Of the atoms' own
        ``info`` and arrays, initial charges and magnetic moments are kept. Two monitors that are at work at the same
        time need files of their own: where a process makes two with one log, the earlier one is closed.
    log
        CSV, appended to, a row a frame, with the operating system when the look is over: a killed run loses none.
    indices
        Atoms to watch, their numbers or a mask; None: all.
    context
        Frames of the steps before a flagged one that are written with it; fewer after a failed one, or one written
        before.
    cooldown
        Steps after a flag in which no other of its class is raised.
    append
        False: what is in `file` and `log` is removed, whatever it is, once nothing stands in the way of the monitor.

    Attributes
    ----------
    ensemble : calculator
        The one that looks.
    threshold, failed_above : float
        lo and hi, eV/Å; the latter is infinite where there is none.
    watched : (K,) array
        Numbers of the atoms that are looked at.
    cooldown : int
        As given.
    degrees_of_freedom : int
        That temperatures are over.
    flags : list of Flag
        The frames flagged so far.

    Raises
    ------
    MonitorError
        The calculator holds no ensemble, or several, and none is given, ``"auto"`` is asked of an ensemble that is not
        calibrated, `file` or `log` cannot be written, was written by something else or is being written by another
        process, or an argument is none of the above.

    Notes
    -----
    A frame in which a number is not finite, in which a watched atom of several has no other within the cutoff, or that
    the calculator refuses, has failed.

    A dynamics that calls a monitor is ended with a `RunawayError` within ten steps of leaving the world, as
    `schnet_ase.monitor.guard.Guard` has it, and the last good frame is in `file`. A monitor that a program calls
    by itself ends nothing.

    References
    ----------
    Zhang et al., DP-GEN, Comput. Phys. Commun. 253, 107206 (2020): classes by the largest model deviation.
    """

    def __init__(
        self,
        atoms: Atoms,
        *,
        ensemble: Any = None,
        threshold: float | tuple[float, float] | str = "auto",
        interval: int = 1,
        action: str | Callable[[Flag], None] = "write",
        file: str | os.PathLike[str] = "flagged.extxyz",
        log: str | os.PathLike[str] = "uncertainty.csv",
        indices: Sequence[int] | None = None,
        context: int = 5,
        cooldown: int = 100,
        append: bool = True,
    ) -> None:
        self._given = ensemble
        self._calculator = atoms.calc
        self.ensemble = ensemble_of(atoms.calc, ensemble)
        if action not in ("write", "stop") and not callable(action):
            raise MonitorError(f"action is {action!r}; expected 'write', 'stop' or a function of a Flag")
        check_counts(interval=(interval, 1), context=(context, 0), cooldown=(cooldown, 0))
        self.threshold, self.failed_above = thresholds_of(threshold, self.ensemble)
        self.flags: list[Flag] = []
        self._atoms = atoms
        self.watched = watched_atoms(atoms, indices)
        self._interval = interval
        self._action = action
        self._file, log_file = Path(file).absolute(), Path(log)  # where the log is, wherever the process goes later
        if self._file.resolve() == log_file.resolve():
            raise MonitorError(f"file and log are both {file}; give two names")
        self._context = int(context)
        # What a flag looks back on, and what the guard may have seen last.
        self._frames: deque[Frame] = deque(maxlen=max(interval + int(context), GUARDED + 1))
        self._looked, self._written = -1, -1
        self.cooldown = cooldown
        self._inverse_masses = 1.0 / atoms.get_masses()
        self.degrees_of_freedom = max(1, degrees_of_freedom(atoms))
        self._ending = Ending(atoms, self.ensemble)
        self._calls = 0
        self._quiet_until = {"candidate": -1, "failed": -1}
        self._last: Verdict | None = None
        self._last_step = -1
        # Last: what is refused has touched no file.
        self._log = open_log(log_file, HEADER, append)  # its lock is that of the other file too
        weakref.finalize(self, self._log.close)
        check_frames_file(self._file, append)
        if not append:
            self._log.truncate(0)
            self._log.write(HEADER)

    def __call__(self) -> None:
        """Look at the step just made, or keep it until the next look.

        Raises
        ------
        UncertaintyExceeded
            It, or one since the last look, is flagged, and `action` is ``"stop"``.
        RunawayError
            The run has left the world.
        """
        # Of a small molecule's step this is several per cent, half of it caches gone cold: every line counts.
        dynamics = calling_dynamics()
        step = self._calls if dynamics is None else dynamics.nsteps
        looks = step % self._interval == 0
        frame = self._frame(step, time_of(dynamics), looks or dynamics is None)
        self._frames.append(frame)
        self._calls += 1
        spread = self._look(frame) if looks else None
        if dynamics is not None and frame.results:
            reason = self._ending.reason(dynamics, frame.step, spread)
            if reason is not None:
                raise self._ended(reason, frame)

    def guarded_by(self, guard: Guard) -> Ending:
        """Leave it to the `guard` of a driver when the run ends, and ask it of the spread alone."""
        self._ending = Ending(self._atoms, self.ensemble, guard)
        return self._ending

    def deviation_at(self, step: int) -> float:
        """The largest ``forces_deviation`` of the watched atoms, eV/Å, if `step` was the last looked at; else NaN."""
        return self._last.largest if self._last is not None and self._last_step == step else math.nan

    def _frame(self, step: int, time_fs: float, sure: bool) -> Frame:
        atoms = self._atoms
        if atoms.calc is not self._calculator:
            self._calculator, self.ensemble = atoms.calc, ensemble_of(atoms.calc, self._given)
            if self._ending.own:
                self._ending = Ending(atoms, self.ensemble)
        momenta = atoms.arrays.get("momenta")
        momenta = np.zeros((len(atoms), 3)) if momenta is None else momenta.copy()
        if len(momenta) != len(self._inverse_masses):
            raise MonitorError(
                f"there are {len(atoms)} atoms now, but were {len(self._inverse_masses)} when the monitor was made; "
                "make a monitor after adding or removing atoms"
            )
        return Frame(self._calls, step, time_fs, momenta, *driven(atoms, sure))

    def _look(self, frame: Frame) -> float:
        """Have the ensemble look at a frame, and where it flags it at those since the last look; the largest spread."""
        verdict = self._verdict(frame, self._atoms)
        if verdict.status != "accurate" and frame.number > self._quiet_until[verdict.status]:
            for earlier in [f for f in self._frames if self._looked < f.number < frame.number]:
                self._record(earlier, self._verdict(earlier, earlier.atoms(self._atoms)))
        self._record(frame, verdict)
        return verdict.largest

    def _verdict(self, frame: Frame, atoms: Atoms) -> Verdict:
        """Of a frame whose atoms these are."""
        frame.results = with_spread(frame.results, atoms, self.ensemble)
        deviation = frame.results["forces_deviation"] if frame.results else np.full(len(atoms), math.nan)
        kinetic, atom, largest, smallest = look(deviation, self.watched, frame.momenta, self._inverse_masses)
        frame.temperature = kinetic / (self.degrees_of_freedom * units.kB)
        # Not where it is no number, nor where a member's forces may be zero for want of neighbours.
        if largest <= self.threshold and smallest > 0.0 and frame.temperature < math.inf:
            return Verdict("accurate", atom, largest, ())
        finite = "forces" in frame.results and all(
            np.isfinite(values).all() for values in (frame.positions, frame.momenta, frame.results["forces"])
        )
        if not finite:
            return Verdict("failed", atom, largest, ())
        lone = tuple(np.intersect1d(self.ensemble.out_of_reach(atoms), self.watched).tolist())
        if lone or not largest <= self.failed_above:  # or it is no number
            return Verdict("failed", atom, largest, lone)
        return Verdict("candidate" if largest > self.threshold else "accurate", atom, largest, ())

    def _record(self, frame: Frame, verdict: Verdict) -> None:
        """Write a frame's row, and raise its flag where one is due."""
        status, atom, largest, _ = verdict
        self._looked, self._last, self._last_step = frame.number, verdict, frame.step
        row = (frame.step, frame.time_fs, frame.temperature, largest, atom, status.encode())
        try:
            self._log.write(b"%d,%.10g,%.6g,%.6g,%d,%s\n" % row)
        except ValueError as error:  # it is closed
            raise MonitorError(
                f"{self._log.name} is that of a monitor made after this one; attach that, or give each a log and a file"
            ) from error
        if status != "accurate" and frame.number > self._quiet_until[status]:
            self._quiet_until[status] = frame.number + self.cooldown
            self._raise_flag(frame, verdict)
        elif status == "failed":
            self._written = frame.number

    def _raise_flag(self, frame: Frame, verdict: Verdict) -> None:
        status, atom, _, lone = verdict
        deviation = frame.results["forces_deviation"] if frame.results else np.full(len(frame.positions), math.nan)
        flag = Flag(frame.step, frame.time_fs, frame.temperature, deviation, atom, self.threshold, status, lone)
        self.flags.append(flag)
        if status == "candidate":
            self._write([*((f, "context") for f in self._leading_to(frame)), (frame, status)])
        self._written = frame.number
        if callable(self._action):
            self._action(flag)
        elif self._action == "stop":
            raise UncertaintyExceeded(flag.sentence(self._atoms.symbols[atom], self._file))

    def _leading_to(self, frame: Frame) -> list[Frame]:
        """The context of a flagged frame, each with the ensemble's spread."""
        first = max(frame.number - self._context, self._written + 1)
        context = [f for f in self._frames if first <= f.number < frame.number]
        for earlier in context:
            if math.isnan(earlier.temperature):
                self._verdict(earlier, earlier.atoms(self._atoms))
        return [f for f in context if f.results]

    def _write(self, frames: Sequence[tuple[Frame, str]]) -> None:
        calibration = None if self._calculator is self.ensemble else getattr(self._calculator, "calibration", None)
        append_frames(self._file, self._atoms, frames, calibration)

    def _ended(self, reason: str, frame: Frame) -> RunawayError:
        """The end of a run, with its last good frame kept."""
        if not self._ending.own:  # whoever has the guard says what is kept
            return RunawayError(reason, frame.step)
        good = self._ending.good_step
        kept = next((f for f in reversed(self._frames) if f.step == good), None)
        where = "no good frame was kept"
        if kept is not None:
            self._verdict(kept, kept.atoms(self._atoms))
            self._write([(kept, "good")])
            where = f"the last good frame, step {good}, is in {self._file}"
        return RunawayError(f"stopped at step {frame.step}: {reason}; {where}; {HELPS}", frame.step)
