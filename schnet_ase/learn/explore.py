"""Run dynamics with the ensemble until a frame is flagged, or for a given time; it resumes after a kill."""

from __future__ import annotations

import io
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary, thermalize_momenta

from schnet_ase.calculators.ensemble import SchNetEnsembleCalculator
from schnet_ase.errors import RunawayError, StructureError, UncertaintyExceeded
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.learn.config import DynamicsConfig
from schnet_ase.monitor.flag import Flag
from schnet_ase.monitor.guard import Guard
from schnet_ase.monitor.monitor import UncertaintyMonitor
from schnet_ase.output.files import atomic_write

log = logging.getLogger("schnet_ase")

STEPS_BETWEEN_STATES = 500
STEPS_BETWEEN_CANDIDATES = 5


class State(NamedTuple):
    """The state of the dynamics: everything that its next step depends on."""

    step: int
    positions: Floats
    momenta: Floats
    random: str
    """State of the thermostat's generator, JSON."""


class Excursion(NamedTuple):
    """A flag and the frames around it."""

    flag: Flag
    safe: State
    """State to resume from: the last frame under the threshold, or the first frame if none was. If atoms left the
    others, or numbers became infinite, or a `Guard` ended the run without an earlier flag, the state last saved."""
    candidates: list[Floats]
    """Positions after the flag, between the thresholds, in order of time; in the latter case, those from `safe` to the
    flag."""
    deviations: list[float]
    """eV/Å, largest ``forces_deviation`` of each."""


def begin(atoms: Atoms, temperature: float, seed: int | list[int], step: int = 0) -> State:
    """Return atoms with Maxwell-Boltzmann velocities and a thermostat's generator; steps count from `step`."""
    rng = np.random.default_rng(seed)
    atoms = atoms.copy()
    thermalize_momenta(atoms, temperature_K=temperature, rng=rng)
    if not atoms.constraints:
        Stationary(atoms, preserve_temperature=False)
    return State(step, atoms.get_positions(), atoms.get_momenta(), _random(rng))


def explore(
    atoms: Atoms,
    start: State,
    until: int,
    thresholds: tuple[float, float],
    dynamics: DynamicsConfig,
    n_after: int,
    folder: Path,
    report: Callable[[int], None],
) -> Excursion | State:
    """Run from `start` to the step `until`, or to a frame above the lower threshold and `n_after` steps beyond it.

    A `Guard` may also end the run, because atoms may fly apart while the members agree.

    Parameters
    ----------
    atoms
        Atoms with an ensemble; they are moved.
    start
        Initial state, unless `folder` has a later one.
    until
        Step at which to end.
    thresholds
        eV/Å; above the second a frame has failed.
    dynamics
        Temperature, time step, friction.
    n_after
        Steps after a flag.
    folder
        Folder of this exploration only, for its state and the monitor's files.
    report
        Callback that occasionally receives the step.

    Returns
    -------
    Excursion or State
        The final state if nothing was flagged, otherwise the excursion.
    """
    calculator = atoms.calc
    assert isinstance(calculator, SchNetEnsembleCalculator)
    _place(atoms, start)  # a resumed run is compared with the same start
    guard = Guard(atoms, dynamics.temperature)
    saved = folder / "dynamics.npz"
    state = _load(saved) if saved.exists() else start
    langevin, rng = _langevin(atoms, state, dynamics)
    monitor = UncertaintyMonitor(
        atoms, threshold=thresholds, action="stop", file=folder / "flagged.extxyz", log=folder / "uncertainty.csv"
    )
    monitor.guarded_by(guard)
    safe = begun = state

    def remember() -> None:  # attached after the monitor, so that only frames below the threshold get here
        nonlocal safe
        safe = State(langevin.nsteps, atoms.get_positions(), atoms.get_momenta(), _random(rng))

    langevin.attach(monitor)
    langevin.attach(lambda: guard.check(langevin.nsteps))
    langevin.attach(remember)
    try:
        if state is start and state.step > 0:  # ASE calls observers before step 0
            calculator.reset()
            langevin.call_observers()
        while langevin.nsteps < until:
            # A run that resumes here has no earlier neighbour list either, so that its sums are equal to the bit.
            calculator.reset()
            langevin.run(min(STEPS_BETWEEN_STATES, until - langevin.nsteps))
            _save(safe, saved)
            begun = safe
            report(langevin.nsteps)
    except (UncertaintyExceeded, RunawayError, StructureError) as error:
        # The last case: one step led from a frame under the threshold to one for which nothing can be computed.
        flagged = isinstance(error, UncertaintyExceeded)
        flag = monitor.flags[-1] if flagged else _lost(langevin, monitor, isinstance(error, RunawayError))
        if isinstance(error, RunawayError):
            said = (
                "step %d of the dynamics: %s, while the members agree; it goes back to step %d, and what followed is "
            )
            log.info(said + "labelled", error.step, error, begun.step)
        if not flagged or (flag.lone and flag.largest <= flag.threshold):
            return Excursion(flag, begun, *_unflagged(atoms, flag, begun, monitor.watched, dynamics))
        state = State(langevin.nsteps, atoms.get_positions(), atoms.get_momenta(), _random(rng))
        return Excursion(flag, safe, *_candidates(atoms, flag, state, monitor, n_after, dynamics))
    return safe


def _lost(langevin: Langevin, monitor: UncertaintyMonitor, made: bool) -> Flag:
    """Return the flag of the step just `made`, or else of the step in progress, whose numbers mean nothing."""
    step, nothing = langevin.nsteps + (not made), np.full(len(langevin.atoms), math.nan)
    time_fs = step * langevin.dt / units.fs
    return Flag(step, time_fs, math.nan, nothing, int(monitor.watched[0]), monitor.threshold, "failed", ())


def _candidates(
    atoms: Atoms, flag: Flag, state: State, monitor: UncertaintyMonitor, n_after: int, dynamics: DynamicsConfig
) -> tuple[list[Floats], list[float]]:
    if flag.status != "candidate":
        return [], []
    positions, deviations = [atoms.get_positions()], [flag.largest]
    unwatched, _ = _langevin(atoms, state, dynamics)
    for _ in range(n_after // STEPS_BETWEEN_CANDIDATES):
        try:
            unwatched.run(STEPS_BETWEEN_CANDIDATES)
        except StructureError:  # atoms are at infinity
            break
        largest = float(atoms.calc.results["forces_deviation"][monitor.watched].max())
        lone = np.intersect1d(atoms.calc.out_of_reach(atoms), monitor.watched)
        if not largest <= monitor.failed_above or lone.size:
            break
        if largest > flag.threshold:
            positions.append(atoms.get_positions())
            deviations.append(largest)
    return positions, deviations


def _unflagged(
    atoms: Atoms, flag: Flag, begun: State, watched: Integers, dynamics: DynamicsConfig
) -> tuple[list[Floats], list[float]]:
    """Return the frames from `begun` to a flag, about which the ensemble was certain, but wrong."""
    positions: list[Floats] = []
    deviations: list[float] = []
    atoms.calc.reset()
    again, _ = _langevin(atoms, begun, dynamics)
    while again.nsteps + STEPS_BETWEEN_CANDIDATES < flag.step:
        again.run(STEPS_BETWEEN_CANDIDATES)
        positions.append(atoms.get_positions())
        deviations.append(float(atoms.calc.results["forces_deviation"][watched].max()))
    return positions, deviations


def _place(atoms: Atoms, state: State) -> None:
    atoms.positions = state.positions
    atoms.set_array("momenta", state.momenta.copy())


def _langevin(atoms: Atoms, state: State, dynamics: DynamicsConfig) -> tuple[Langevin, np.random.Generator]:
    _place(atoms, state)
    rng = np.random.default_rng()
    rng.bit_generator.state = json.loads(state.random)
    langevin = Langevin(
        atoms,
        dynamics.timestep * units.fs,
        temperature_K=dynamics.temperature,
        friction=dynamics.friction / (1000.0 * units.fs),
        fixcm=False,
        rng=rng,
    )
    langevin.nsteps = state.step
    return langevin, rng


def _random(rng: np.random.Generator) -> str:
    return json.dumps(rng.bit_generator.state)


def save_excursion(excursion: Excursion, path: Path) -> None:
    """Write an excursion into one ``.npz``, atomically."""
    flag = excursion.flag
    _write(
        path,
        flag=json.dumps({**flag._asdict(), "deviation": flag.deviation.tolist()}),
        candidates=np.array(excursion.candidates),
        deviations=np.array(excursion.deviations),
        **excursion.safe._asdict(),
    )


def load_excursion(path: Path) -> Excursion:
    """Read what `save_excursion` wrote."""
    with np.load(path) as arrays:
        fields = json.loads(str(arrays["flag"]))
        flag = Flag(**{**fields, "deviation": np.array(fields["deviation"]), "lone": tuple(fields["lone"])})
        return Excursion(flag, _state(arrays), list(arrays["candidates"]), arrays["deviations"].tolist())


def _save(state: State, path: Path) -> None:
    _write(path, **state._asdict())


def _load(path: Path) -> State:
    with np.load(path) as arrays:
        return _state(arrays)


def _state(arrays: Any) -> State:
    return State(int(arrays["step"]), arrays["positions"], arrays["momenta"], str(arrays["random"]))


def _write(path: Path, **arrays: Any) -> None:
    content = io.BytesIO()
    np.savez(content, **arrays)
    atomic_write(path, content.getvalue())
