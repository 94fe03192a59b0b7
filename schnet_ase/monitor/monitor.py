"""Watching a run: which frames the ensemble is not to be believed on, written down before the run goes wrong."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.constraints import FixAtoms, FixCartesian
from ase.md.md import MolecularDynamics
from ase.optimize.optimize import BaseDynamics
from numpy.typing import NDArray

from schnet_ase.errors import MonitorError, StructureError, UncertaintyExceeded
from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.motion import degrees_of_freedom
from schnet_ase.monitor.ensemble import ensemble_of, results_of
from schnet_ase.monitor.files import Frame, append_frames, check_frames_file, open_log
from schnet_ase.monitor.statistics import look

FAILED_ABOVE = 5.0
"""Times lo: hi of ``threshold="auto"``, and in learning wherever none is given."""
HEADER = b"step,time_fs,temperature_K,max_forces_deviation_eV_per_A,atom,status\n"


class Flag(NamedTuple):
    """A frame that was flagged."""

    step: int
    time_fs: float
    """NaN in an optimization."""
    temperature: float
    """K."""
    deviation: Floats
    """(N,) ``forces_deviation``, eV/Å."""
    atom: int
    """Of the watched atoms the one with the largest."""
    threshold: float
    """eV/Å, which that exceeds, unless the frame has failed otherwise."""
    status: str
    """``"candidate"``, or ``"failed"``: too far off to learn from."""
    lone: tuple[int, ...]
    """Watched atoms that no other is within the cutoff of: the members agree on them, and know nothing."""

    @property
    def largest(self) -> float:
        """The deviation of `atom`, eV/Å."""
        return float(self.deviation[self.atom])


class UncertaintyMonitor:
    """An observer that flags uncertain frames of a dynamics or an optimization: ``dyn.attach(monitor)``.

    Every `interval` steps the largest ``forces_deviation`` of the watched atoms is compared with a threshold. A frame
    above it is written to `file` at once, whole, with the frames that led there; then `cooldown` looks pass before
    another is. Every look gets a row in `log`.

    Parameters
    ----------
    atoms
        Those that move, with a `SchNetEnsembleCalculator`, a sum of ASE's that holds one (``SumCalculator([ensemble,
        dispersion])`` and the like), or any calculator where `ensemble` is given. Atoms held by
        ``FixAtoms``, or by ``FixCartesian`` in all directions, when the monitor is made are not watched; the
        temperatures are of the masses at that time, and of all degrees of freedom but those that constraints say they
        remove (ASE's ``MirrorForce`` and the like do not). At constant energy,
        `schnet_ase.simulation.drivers.run_md` leaves out the motion that such a run keeps.
    ensemble
        The ensemble that looks, where the calculator that moves the atoms neither is nor holds one; it then computes at
        each look. The deviation is the ensemble's own in any case.
    threshold
        ``(lo, hi)`` in eV/Å, DP-GEN's classes: up to lo accurate, up to hi candidate, above failed and not saved. One
        number is lo, without hi. ``"auto"``: lo is what one frame in 1,000 like the calibration frames exceeds, hi five
        times that; for another rate give ``atoms.calc.calibration.threshold(rate)``.
    interval
        Steps between looks.
    action
        ``"write"``: only that; ``"stop"``: then raise `UncertaintyExceeded`; or a function of the `Flag`, called then.
    file
        extxyz, appended to. Frames carry ``step``, ``time_fs``, ``temperature_K``, ``schnet_status`` (``"context"`` or
        ``"candidate"``), ``schnet_energy_std`` and per atom ``schnet_forces_deviation``. Energy, forces and stress are
        those of the calculator that moves the atoms; an ensemble's are no labels to train on. Of the atoms' own
        ``info`` and arrays, initial charges and magnetic moments are kept. Two monitors that are at work at the same
        time need files of their own: where a process makes two with one log, the earlier one is closed.
    log
        CSV, appended to, a row a look, with the operating system when the look is over: a killed run loses none.
    indices
        Atoms to watch, their numbers or a mask; None: all.
    context
        Frames looked at before a flagged one that are written with it; fewer after a failed one, or one written before.
    cooldown
        Looks after a flag in which no other of its class is raised.
    append
        False: what is in `file` and `log` is removed, whatever it is, once nothing stands in the way of the monitor.

    Attributes
    ----------
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
        self._ensemble = ensemble_of(atoms.calc, ensemble)
        if action not in ("write", "stop") and not callable(action):
            raise MonitorError(f"action is {action!r}; expected 'write', 'stop' or a function of a Flag")
        for name, value, least in (("interval", interval, 1), ("context", context, 0), ("cooldown", cooldown, 0)):
            if not isinstance(value, (int, np.integer)) or value < least:
                raise MonitorError(f"{name} is {value!r}; expected an integer of at least {least}")
        self.threshold, self.failed_above = _thresholds(threshold, self._ensemble)
        self.flags: list[Flag] = []
        self._atoms = atoms
        self.watched = _watched(atoms, indices)
        self._interval = interval
        self._action = action
        self._file, log_file = Path(file).absolute(), Path(log)  # where the log is, wherever the process goes later
        if self._file.resolve() == log_file.resolve():
            raise MonitorError(f"file and log are both {file}; give two names")
        self._context: deque[Frame] = deque(maxlen=int(context))
        self.cooldown = cooldown
        self._inverse_masses = 1.0 / atoms.get_masses()
        self.degrees_of_freedom = max(1, degrees_of_freedom(atoms))
        self._calls = 0
        self._looks = 0
        self._quiet_until = {"candidate": 0, "failed": 0}
        # Last: what is refused has touched no file.
        self._log = open_log(log_file, HEADER, append)  # its lock is that of the other file too
        weakref.finalize(self, self._log.close)
        check_frames_file(self._file, append)
        if not append:
            self._log.truncate(0)
            self._log.write(HEADER)

    def __call__(self) -> None:
        """Look at the step just made.

        Raises
        ------
        UncertaintyExceeded
            It is flagged, and `action` is ``"stop"``.
        """
        # Of a small molecule's step this is several per cent, half of it caches gone cold: every line counts.
        dynamics = _calling_dynamics()
        step = self._calls if dynamics is None else dynamics.nsteps
        self._calls += 1
        if step % self._interval:
            return
        self._looks += 1
        time_fs = dynamics.get_time() / units.fs if isinstance(dynamics, MolecularDynamics) else math.nan
        atoms = self._atoms
        calculator = atoms.calc
        if calculator is not self._calculator:
            self._calculator, self._ensemble = calculator, ensemble_of(calculator, self._given)
        if calculator is self._ensemble:
            if "forces_deviation" not in calculator.results or calculator.check_state(atoms):
                with contextlib.suppress(StructureError):  # no results then
                    atoms.get_forces()
            results = calculator.results
        else:
            results = results_of(atoms, self._ensemble)
        momenta = atoms.arrays.get("momenta")
        momenta = np.zeros((len(atoms), 3)) if momenta is None else momenta.copy()
        if len(momenta) != len(self._inverse_masses):
            raise MonitorError(
                f"there are {len(atoms)} atoms now, but were {len(self._inverse_masses)} when the monitor was made; "
                "make a monitor after adding or removing atoms"
            )
        deviation = results["forces_deviation"] if results else np.full(len(atoms), math.nan)
        kinetic, atom, largest, smallest = look(deviation, self.watched, momenta, self._inverse_masses)
        temperature = kinetic / (self.degrees_of_freedom * units.kB)
        # Not where it is no number, nor where a member's forces may be zero for want of neighbours.
        accurate = largest <= self.threshold and smallest > 0.0 and temperature < math.inf
        frame = Frame(step, time_fs, temperature, atoms.positions.copy(), momenta, atoms.cell.array.copy(), results)
        status, lone = ("accurate", ()) if accurate else self._class(largest, frame)
        row = b"%d,%.10g,%.6g,%.6g,%d,%s\n" % (step, time_fs, temperature, largest, atom, status.encode())
        try:
            self._log.write(row)
        except ValueError as error:  # it is closed
            raise MonitorError(
                f"{self._log.name} is that of a monitor made after this one; attach that, or give each a log and a file"
            ) from error
        if status != "accurate" and self._looks > self._quiet_until[status]:
            self._quiet_until[status] = self._looks + self.cooldown
            flag = Flag(step, time_fs, temperature, deviation, atom, self.threshold, status, lone)
            self._raise_flag(flag, frame)
        elif status == "failed":
            self._context.clear()
        else:
            self._context.append(frame)

    def _class(self, largest: float, frame: Frame) -> tuple[str, tuple[int, ...]]:
        """Of a frame above the threshold, or whose spread may be zero for want of neighbours; and its lone atoms."""
        finite = "forces" in frame.results and all(
            np.isfinite(values).all() for values in (frame.positions, frame.momenta, frame.results["forces"])
        )
        if not finite:
            return "failed", ()
        lone = np.intersect1d(self._ensemble.out_of_reach(self._atoms), self.watched)
        if lone.size or not largest <= self.failed_above:  # or it is no number
            return "failed", tuple(lone.tolist())
        return "candidate" if largest > self.threshold else "accurate", ()

    def _raise_flag(self, flag: Flag, frame: Frame) -> None:
        self.flags.append(flag)
        context = [(f, "context") for f in self._context]
        self._context.clear()
        if flag.status == "candidate":
            append_frames(self._file, self._atoms, [*context, (frame, flag.status)])
        if callable(self._action):
            self._action(flag)
        elif self._action == "stop":
            symbol = self._atoms.symbols[flag.atom]
            saved = f"frame written to {self._file}" if flag.status == "candidate" else "frame not saved"
            reason = f"above the threshold of {flag.threshold:.3g}"
            if flag.lone:
                reason = f"and atom {flag.lone[0]} has no other within the cutoff"
            raise UncertaintyExceeded(
                f"step {flag.step}: forces_deviation of atom {flag.atom} ({symbol}) is {flag.largest:.3g} eV/Å, "
                f"{flag.status}, {reason}; {saved}"
            )


def _calling_dynamics() -> BaseDynamics | None:
    """ASE does not tell an observer whose it is, but it is that dynamics that calls, perhaps by way of a function."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, BaseDynamics):
            return caller
        frame = frame.f_back
    return None


def _thresholds(threshold: Any, ensemble: Any) -> tuple[float, float]:
    """The threshold, and above what a frame has failed."""
    if isinstance(threshold, str):
        if threshold != "auto":
            raise MonitorError(f"threshold is {threshold!r}; expected 'auto', a number in eV/Å or a pair (lo, hi)")
        if ensemble.calibration is None:
            raise MonitorError(
                "threshold='auto' needs a calibrated ensemble; give threshold in eV/Å, or run schnet-ase calibrate"
            )
        lo = ensemble.calibration.threshold()
        return lo, FAILED_ABOVE * lo
    pair = threshold if isinstance(threshold, (tuple, list)) else (threshold, math.inf)
    try:
        lo, hi = (float(value) for value in pair)
    except (TypeError, ValueError):
        lo = hi = math.nan
    if not 0.0 < lo < hi or not math.isfinite(lo):
        raise MonitorError(f"threshold is {threshold!r}; expected 0 < lo < hi in eV/Å, one number or a pair")
    return lo, hi


def _watched(atoms: Atoms, indices: Sequence[int] | None) -> NDArray[np.int64]:
    given = np.arange(len(atoms)) if indices is None else np.asarray(indices)
    if given.dtype == bool and given.shape == (len(atoms),):
        given = np.flatnonzero(given)
    if given.dtype.kind not in "iu" or given.ndim != 1 or not len(given) or not (given >= 0).all():
        raise MonitorError(f"indices is {indices!r}; expected at least one atom, counted from 0, or a mask")
    if given.max() >= len(atoms):
        raise MonitorError(f"indices has atom {given.max()}, but there are {len(atoms)} atoms, counted from 0")
    free = np.ones(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms) or (isinstance(constraint, FixCartesian) and constraint.mask.all()):
            free[constraint.index] = False
    watched = np.unique(given[free[given]])
    if not len(watched):
        raise MonitorError("every atom to watch is fixed; give other indices")
    return watched.astype(np.int64)
