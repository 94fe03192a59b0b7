"""Monitor of a run, which saves the frames on which the ensemble is uncertain before the run goes wrong."""

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
from schnet_ase.monitor.arguments import NEAR, check_counts, thresholds_of, watched_atoms
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
    """Observer that flags uncertain frames of dynamics or of an optimization: ``dyn.attach(monitor)``.

    Every `interval` steps, the ensemble checks the frame: the largest ``forces_deviation`` of the watched atoms is
    compared with a threshold. If it is above half of it, the frames since the last check are checked too. The first
    frame above the threshold is saved in `file` at once, with the frames that led to it; no other frame is saved in the
    next `cooldown` steps. Every checked frame gets a row in `log`. A run that a `Guard` rejects is ended.

    Parameters
    ----------
    atoms
        Atoms of the run, with a `SchNetEnsembleCalculator`, one of ASE's sums that contains one
        (``SumCalculator([ensemble, dispersion])``), or, if `ensemble` is given, any calculator: a student, one network,
        DFT. Atoms that ``FixAtoms``, or ``FixCartesian`` in all directions, fixes when the monitor is made are not
        watched. Temperatures are computed with the masses at that time, and over all degrees of freedom except those
        that constraints report as removed (ASE's ``MirrorForce`` and similar ones report none). At constant energy,
        `schnet_ase.simulation.dynamics.run_md` also leaves out motion that the run conserves.
    ensemble
        Ensemble to check with, if the calculator that moves the atoms neither is nor contains one: a calculator, or a
        registry name or folder as for `SchNetEnsembleCalculator`. It computes only the checked frames, and uses the
        neighbour list of the calculator that moves the atoms if that belongs to this package. The deviation is always
        that of the ensemble itself.
    threshold
        ``(lo, hi)`` in eV/Å for DP-GEN's classes: accurate up to lo, candidate up to hi, failed and not saved above.
        One number is lo, without hi. ``"auto"``: lo is the threshold of the calibration, which 1 frame in 1,000 exceeds
        unless the card states another rate, and hi is five times lo; see ``atoms.calc.calibration.threshold(rate)``.
    interval
        Number of steps between checks. Frames between two checks are kept with the results of the calculator that moves
        the atoms. If a check finds a deviation above half the threshold, these frames are checked too, so that the flag
        is at the same step as for an `interval` of 1. A frame above it is missed if the check after it finds less.
    action
        Action after saving a flagged frame. ``"write"``: nothing else; ``"stop"``: raise `UncertaintyExceeded`; or a
        callback that receives the `Flag`. The atoms are then up to ``interval - 1`` steps after the flagged frame.
    file
        File in extxyz format, to which frames are appended. They have ``step``, ``time_fs``, ``temperature_K``,
        ``schnet_status`` (``"context"``, ``"candidate"``, or ``"good"`` for the last one before a run was ended),
        ``schnet_energy_std``, per atom ``schnet_forces_deviation`` and, if the calculator that moves the atoms is
        calibrated, the half-widths of its errors, ``schnet_energy_uncertainty`` and ``schnet_forces_uncertainty``.
        Energy, forces and stress are those of the calculator that moves the atoms; do not train on those of a network.
        Of the atoms' own ``info`` and arrays, initial charges and magnetic moments are saved. Two monitors in use at
        the same time need separate files; if a process makes two with the same log, the earlier one is closed.
    log
        CSV file, to which each check appends its rows at once, so that a killed run loses none.
    indices
        Atoms to watch, as indices or a mask; None: all.
    context
        Number of frames before a flagged one that are saved with it; fewer after a failed or a saved frame.
    cooldown
        Number of steps after a flag in which no other flag of its class is raised.
    append
        Whether to keep the content of `file` and `log`. False: it is removed once all arguments are found valid.

    Attributes
    ----------
    ensemble : calculator
        Ensemble that checks.
    threshold, failed_above : float
        lo and hi, eV/Å; hi is infinite if not given.
    watched : (K,) array
        Indices of the watched atoms.
    cooldown : int
        The argument `cooldown`.
    degrees_of_freedom : int
        Number of degrees of freedom for temperatures.
    flags : list of Flag
        Frames flagged so far.

    Raises
    ------
    MonitorError
        The calculator contains no ensemble, or several, and none is given; ``"auto"`` is used with an ensemble that is
        not calibrated; `file` or `log` cannot be written, was written by something else or is being written by another
        process; or an argument is not one of the above.

    Notes
    -----
    A frame of several atoms has failed if a number is not finite, if a watched atom has no neighbour within the cutoff,
    or if the calculator refuses it.

    Dynamics that calls a monitor is ended with a `RunawayError` within ten steps if it violates a criterion of
    `schnet_ase.monitor.guard.Guard`, and the last good frame is saved in `file`. A monitor that a program calls itself
    ends nothing.

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
        self._interval, self.cooldown = interval, cooldown
        self._action = action
        self._file, log_file = Path(file).absolute(), Path(log)  # valid if the working directory changes
        if self._file.resolve() == log_file.resolve():
            raise MonitorError(f"file and log are both {file}; give two names")
        self._context = int(context)
        # Enough frames for the context of a flag and for the last good frame of the guard.
        self._frames: deque[Frame] = deque(maxlen=max(interval + int(context), GUARDED + 1))
        self._looked, self._written = -1, -1
        self._inverse_masses = 1.0 / atoms.get_masses()
        self.degrees_of_freedom = max(1, degrees_of_freedom(atoms))
        self._ending = Ending(atoms, self.ensemble)
        self._calls = 0
        self._quiet_until = {"candidate": -1, "failed": -1}
        self._last: Verdict | None = None
        self._last_step = -1
        # Last, so that invalid arguments leave the files untouched.
        self._log = open_log(log_file, HEADER, append)  # its lock also protects the other file
        weakref.finalize(self, self._log.close)
        check_frames_file(self._file, append)
        if not append:
            self._log.truncate(0)
            self._log.write(HEADER)

    def __call__(self) -> None:
        """Check the step just made, or keep it until the next check.

        Raises
        ------
        UncertaintyExceeded
            This step, or one since the last check, is flagged, and `action` is ``"stop"``.
        RunawayError
            The guard ends the run.
        """
        # This takes several per cent of a small molecule's step, half of it from cold caches: every line counts.
        dynamics = calling_dynamics()
        step = self._calls if dynamics is None else dynamics.nsteps
        looks = step % self._interval == 0
        frame = self._frame(step, time_of(dynamics), looks or dynamics is None)
        self._frames.append(frame)
        self._calls += 1
        spread = self._look(frame) if looks else None
        if dynamics is None or not frame.results or (spread is None and self._ending.idle(step)):
            return
        reason = self._ending.reason(dynamics, step, spread, self._interval)
        if reason is not None:
            raise self._ended(reason, frame)

    def guarded_by(self, guard: Guard) -> Ending:
        """Let the `guard` of a driver decide when the run ends; only the spread is passed to it here."""
        self._ending = Ending(self._atoms, self.ensemble, guard)
        return self._ending

    def deviation_at(self, step: int) -> float:
        """Return the largest ``forces_deviation`` of the watched atoms, eV/Å; NaN unless `step` was checked last."""
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
        """Check a frame and, if it is flagged, those since the last check; return the largest deviation."""
        verdict = self._verdict(frame, self._atoms)
        near = verdict.status != "accurate" or verdict.largest > NEAR * self.threshold
        if near and frame.number > self._quiet_until.get(verdict.status, self._quiet_until["candidate"]):
            for earlier in [f for f in self._frames if self._looked < f.number < frame.number]:
                self._record(earlier, self._verdict(earlier, earlier.atoms(self._atoms)))
        self._record(frame, verdict)
        return verdict.largest

    def _verdict(self, frame: Frame, atoms: Atoms) -> Verdict:
        """Classify a frame with these atoms."""
        frame.results = with_spread(frame.results, atoms, self.ensemble)
        deviation = frame.results["forces_deviation"] if frame.results else np.full(len(atoms), math.nan)
        kinetic, atom, largest, smallest = look(deviation, self.watched, frame.momenta, self._inverse_masses)
        frame.temperature = kinetic / (self.degrees_of_freedom * units.kB)
        # False for NaN, and for a zero deviation, which an atom without neighbours may have.
        if largest <= self.threshold and smallest > 0.0 and frame.temperature < math.inf:
            return Verdict("accurate", atom, largest, ())
        finite = "forces" in frame.results and all(
            np.isfinite(values).all() for values in (frame.positions, frame.momenta, frame.results["forces"])
        )
        if not finite:
            return Verdict("failed", atom, largest, ())
        lone = tuple(np.intersect1d(self.ensemble.out_of_reach(atoms), self.watched).tolist())
        if lone or not largest <= self.failed_above:  # also NaN
            return Verdict("failed", atom, largest, lone)
        return Verdict("candidate" if largest > self.threshold else "accurate", atom, largest, ())

    def _record(self, frame: Frame, verdict: Verdict) -> None:
        """Write the row of a frame and, unless in a cool-down, raise its flag."""
        status, atom, largest, _ = verdict
        self._looked, self._last, self._last_step = frame.number, verdict, frame.step
        row = (frame.step, frame.time_fs, frame.temperature, largest, atom, status.encode())
        try:
            self._log.write(b"%d,%.10g,%.6g,%.6g,%d,%s\n" % row)
        except ValueError as error:  # the log is closed
            raise MonitorError(
                f"{self._log.name} belongs to a monitor made after this one; attach that, or give each a log and a file"
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
        """Return the context of a flagged frame, with the ensemble's spread."""
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
        """Save the last good frame and return the error that ends the run."""
        if not self._ending.own:  # the driver, which has the guard, keeps the last good frame
            return RunawayError(reason, frame.step)
        good = self._ending.good_step
        kept = next((f for f in reversed(self._frames) if f.step == good), None)
        where = "no good frame was kept"
        if kept is not None:
            self._verdict(kept, kept.atoms(self._atoms))
            self._write([(kept, "good")])
            where = f"the last good frame, step {good}, is in {self._file}"
        return RunawayError(f"stopped at step {frame.step}: {reason}; {where}; {HELPS}", frame.step)
