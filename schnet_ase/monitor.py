"""Watching a run: which frames the ensemble is not to be believed on, written down before the run goes wrong."""

from __future__ import annotations

import io
import math
import os
import sys
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io.extxyz import write_extxyz
from ase.md.md import MolecularDynamics
from ase.optimize.optimize import BaseDynamics
from numpy.typing import NDArray

from schnet_ase.errors import MonitorError, UncertaintyExceeded
from schnet_ase.neighbors import Floats

HEADER = "step,time_fs,temperature_K,max_forces_deviation_eV_per_A,atom,status\n"


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
    """eV/Å, which that exceeds."""
    status: str
    """``"candidate"``, or ``"failed"``: too far off to learn from."""

    @property
    def largest(self) -> float:
        """The deviation of `atom`, eV/Å."""
        return float(self.deviation[self.atom])


class _Frame(NamedTuple):
    """What a frame of context is made of again."""

    step: int
    time_fs: float
    positions: Floats
    momenta: Floats
    cell: Floats
    temperature: float
    results: dict[str, Any]


class UncertaintyMonitor:
    """An observer that flags uncertain frames of a dynamics or an optimization: ``dyn.attach(monitor)``.

    The largest ``forces_deviation`` of the watched atoms is compared with a threshold at every step. The first frame of
    an excursion above it is written to `file` at once, whole, with the frames that led there; the next one is when the
    deviation has been below since and `cooldown` steps have passed. Every step gets a row in `log`.

    Parameters
    ----------
    atoms
        Those that move, with a `SchNetEnsembleCalculator`. Atoms held by ``FixAtoms`` are not watched.
    threshold
        eV/Å; or ``(lo, hi)``, DP-GEN's classes: below lo accurate, between candidate, above hi failed and not saved;
        or ``"auto"``: what one frame in 1,000 like the calibration frames exceeds.
    interval
        Steps between looks.
    action
        ``"write"``: only that; ``"stop"``: then raise `UncertaintyExceeded`; or a function of the `Flag`, called then.
    file
        extxyz, appended to. Frames carry ``step``, ``time_fs``, ``temperature_K``, ``schnet_status`` (``"context"`` or
        ``"candidate"``) and per atom ``schnet_forces_deviation``.
    log
        CSV, appended to, a row a look, on disk when the look is over.
    indices
        Atoms to watch; None: all.
    context
        Frames before a flagged one that are written with it.
    cooldown
        Looks after a written frame in which no other is.

    Attributes
    ----------
    threshold, failed_above : float
        eV/Å; the latter is infinite unless given.
    flags : list of Flag
        The frames flagged so far, one an excursion.

    Raises
    ------
    MonitorError
        The calculator has no ``forces_deviation``, ``"auto"`` is asked of an ensemble that is not calibrated, `log` is
        another kind of file, or an argument is none of the above.

    References
    ----------
    Zhang et al., DP-GEN, Comput. Phys. Commun. 253, 107206 (2020): classes by the largest model deviation.
    """

    def __init__(
        self,
        atoms: Atoms,
        *,
        threshold: float | tuple[float, float] | str = "auto",
        interval: int = 1,
        action: str | Callable[[Flag], None] = "write",
        file: str | os.PathLike[str] = "flagged.extxyz",
        log: str | os.PathLike[str] = "uncertainty.csv",
        indices: Sequence[int] | None = None,
        context: int = 5,
        cooldown: int = 100,
    ) -> None:
        if "forces_deviation" not in getattr(atoms.calc, "implemented_properties", ()):
            raise MonitorError(
                f"the calculator of atoms is {type(atoms.calc).__name__}, which has no forces_deviation; "
                "use a SchNetEnsembleCalculator"
            )
        if action not in ("write", "stop") and not callable(action):
            raise MonitorError(f"action is {action!r}; expected 'write', 'stop' or a function of a Flag")
        for name, value, least in (("interval", interval, 1), ("context", context, 0), ("cooldown", cooldown, 0)):
            if type(value) is not int or value < least:
                raise MonitorError(f"{name} is {value!r}; expected an integer of at least {least}")
        self.threshold, self.failed_above = _thresholds(threshold, atoms.calc)
        self.flags: list[Flag] = []
        self._atoms = atoms
        self._watched = _watched(atoms, indices)
        self._interval = interval
        self._action = action
        self._file = Path(file)
        self._log = _open_log(Path(log))
        weakref.finalize(self, self._log.close)
        self._context: deque[_Frame] = deque(maxlen=context)
        self._cooldown = cooldown
        self._masses = atoms.get_masses()
        self._degrees_of_freedom = max(1, atoms.get_number_of_degrees_of_freedom())
        self._calls = 0
        self._looks = 0
        self._quiet_until = 0
        self._above = False

    def __call__(self) -> None:
        """Look at the step just made.

        Raises
        ------
        UncertaintyExceeded
            It is flagged, and `action` is ``"stop"``.
        """
        # ASE does not tell an observer whose it is, but it is that dynamics that calls.
        dynamics = sys._getframe(1).f_locals.get("self")
        step, time_fs = self._calls, math.nan
        if isinstance(dynamics, BaseDynamics):
            step = dynamics.nsteps
            time_fs = dynamics.get_time() / units.fs if isinstance(dynamics, MolecularDynamics) else math.nan
        self._calls += 1
        if step % self._interval:
            return
        self._looks += 1
        atoms = self._atoms
        if "forces_deviation" not in atoms.calc.results or atoms.calc.check_state(atoms):
            atoms.get_forces()
        results = atoms.calc.results
        momenta = atoms.arrays.get("momenta")
        momenta = np.zeros((len(atoms), 3)) if momenta is None else momenta.copy()
        kinetic = 0.5 * float(np.einsum("ik,ik,i->", momenta, momenta, 1.0 / self._masses))
        temperature = 2.0 * kinetic / (self._degrees_of_freedom * units.kB)
        deviation = results["forces_deviation"]
        atom = int(self._watched[deviation[self._watched].argmax()])
        largest = float(deviation[atom])
        status = "accurate"
        if not largest <= self.threshold:  # also where it is not a number
            status = "candidate" if largest <= self.failed_above and math.isfinite(largest) else "failed"
        self._log.write(f"{step},{time_fs:.6g},{temperature:.6g},{largest:.6g},{atom},{status}\n")
        positions, cell = atoms.positions.copy(), atoms.cell.array.copy()
        frame = _Frame(step, time_fs, positions, momenta, cell, temperature, results)
        if status == "accurate":
            self._above = False
        elif not self._above and self._looks > self._quiet_until:
            self._above = True
            self._quiet_until = self._looks + self._cooldown
            self._raise_flag(Flag(step, time_fs, temperature, deviation, atom, self.threshold, status), frame)
        self._context.append(frame)

    def _raise_flag(self, flag: Flag, frame: _Frame) -> None:
        self.flags.append(flag)
        if flag.status == "candidate":
            self._write([(f, "context") for f in self._context] + [(frame, flag.status)])
            self._context.clear()
        if callable(self._action):
            self._action(flag)
        elif self._action == "stop":
            symbol = self._atoms.get_chemical_symbols()[flag.atom]
            saved = f"frame written to {self._file}" if flag.status == "candidate" else "frame not saved"
            raise UncertaintyExceeded(
                f"step {flag.step}: forces_deviation of atom {flag.atom} ({symbol}) is {flag.largest:.3g} eV/Å, "
                f"{flag.status}, above the threshold of {flag.threshold:.3g}; {saved}"
            )

    def _write(self, frames: list[tuple[_Frame, str]]) -> None:
        """All frames by one write, so that none is there in part."""
        text = io.StringIO()
        for frame, status in frames:
            atoms = Atoms(
                self._atoms.numbers,
                frame.positions,
                momenta=frame.momenta,
                cell=frame.cell,
                pbc=self._atoms.pbc,
                constraint=self._atoms.constraints,
            )
            atoms.info.update(
                step=frame.step,
                time_fs=frame.time_fs,
                temperature_K=frame.temperature,
                schnet_status=status,
                schnet_energy_std=frame.results["energy_std"],
            )
            atoms.set_array("schnet_forces_deviation", frame.results["forces_deviation"])
            known = {name: frame.results[name] for name in ("energy", "forces")}
            atoms.calc = SinglePointCalculator(atoms, **known)
            write_extxyz(text, [atoms])
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with open(self._file, "a", encoding="utf-8") as file:
            file.write(text.getvalue())
            file.flush()
            os.fsync(file.fileno())


def _thresholds(threshold: Any, calculator: Any) -> tuple[float, float]:
    """The threshold, and above what a frame has failed."""
    if isinstance(threshold, str):
        if threshold != "auto":
            raise MonitorError(f"threshold is {threshold!r}; expected 'auto', a number in eV/Å or a pair (lo, hi)")
        if calculator.calibration is None:
            raise MonitorError(
                "threshold='auto' needs a calibrated ensemble; give threshold in eV/Å, or run schnet-ase calibrate"
            )
        return calculator.calibration.threshold(), math.inf
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
    if given.dtype.kind not in "iu" or given.ndim != 1 or not len(given) or not (given >= 0).all():
        raise MonitorError(f"indices is {indices!r}; expected at least one atom, counted from 0")
    if given.max() >= len(atoms):
        raise MonitorError(f"indices has atom {given.max()}, but there are {len(atoms)} atoms, counted from 0")
    fixed = [c.get_indices() for c in atoms.constraints if isinstance(c, FixAtoms)]
    watched = np.setdiff1d(given, np.concatenate(fixed)) if fixed else np.unique(given)
    if not len(watched):
        raise MonitorError("every atom to watch is fixed; give other indices")
    return watched.astype(np.int64)


def _open_log(path: Path) -> io.TextIOBase:
    """A log to append to, a row at a time; a new one gets the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.stat().st_size:
        with open(path, encoding="utf-8", errors="replace") as file:
            if file.readline() != HEADER:
                raise MonitorError(f"{path} is there and no log of a monitor; give another log or remove it")
    log = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 - open as long as the run lasts
    if not path.stat().st_size:
        log.write(HEADER)
    return log
