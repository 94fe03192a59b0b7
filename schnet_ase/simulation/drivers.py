"""Molecular dynamics and geometry optimization with everything written down: trajectory, CSV and picture."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from ase.io import Trajectory, write
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from schnet_ase.errors import RunawayError, SchNetError, StructureError
from schnet_ase.geometry.motion import Thermometer, draw_velocities, equilibrate, equilibration_steps
from schnet_ase.monitor.monitor import UncertaintyMonitor
from schnet_ase.output.files import atomic_write
from schnet_ase.simulation.guard import Guard


class MDRow(NamedTuple):
    """One logged step of a run."""

    time_ps: float
    potential_eV: float
    kinetic_eV: float
    total_eV: float
    temperature_K: float
    """By a `schnet_ase.geometry.motion.Thermometer`: over the degrees of freedom that the run may exchange energy
    between."""
    drift_meV_per_atom: float
    """Total energy less that of the first step."""
    max_forces_deviation_eV_per_A: float
    """Of the ensemble, largest over atoms; NaN for a single model."""


class RelaxRow(NamedTuple):
    """One step of an optimization."""

    step: int
    energy_eV: float
    max_force_eV_per_A: float
    max_forces_deviation_eV_per_A: float
    """As in `MDRow`."""


def run_md(
    atoms: Atoms,
    output: Path,
    *,
    steps: int,
    timestep_fs: float = 0.5,
    temperature: float = 300.0,
    thermostat: bool = False,
    friction_per_ps: float = 10.0,
    seed: int = 0,
    interval: int = 10,
    monitor: UncertaintyMonitor | None = None,
    report: Callable[[int, MDRow | None], None] = lambda step, row: None,
) -> list[MDRow]:
    """Velocity-Verlet (NVE) or Langevin (NVT) dynamics.

    Parameters
    ----------
    atoms
        With a calculator; moved in place. Atoms at rest get Maxwell-Boltzmann velocities without total momentum and,
        for a molecule, without rotation. Without a thermostat they are equilibrated too, so that the mean temperature
        at constant energy is the one asked for: `schnet_ase.geometry.motion.equilibrate`. Atoms with velocities keep
        them.
    output
        Prefix of ``.traj``, ``.csv`` (a row as soon as it is known) and ``.png``.
    steps
        Number of steps, those of an equilibration not counted.
    timestep_fs
        fs.
    temperature
        K, of atoms that are at rest, and of the thermostat.
    thermostat
        Whether to run Langevin dynamics.
    friction_per_ps
        1/ps, of the thermostat.
    seed
        Of the velocities, the equilibration and the thermostat.
    interval
        Steps between logged rows and trajectory frames.
    monitor
        Attached to the dynamics, not to the equilibration; if it stops the run, what there is by then is written, the
        picture too.
    report
        Called after every step, with the row where one was logged; in an equilibration with numbers below zero, which
        count up to 0.

    Returns
    -------
    list of MDRow

    Raises
    ------
    RunawayError
        A `schnet_ase.simulation.guard.Guard` stopped the run. The last good frame is the last that is written, and
        `atoms` are there.
    """
    atoms.get_potential_energy()  # atoms that the model refuses leave no file in the way of the next run
    rng = np.random.default_rng(seed)
    guard = Guard(atoms, temperature, conserved=not thermostat)
    if monitor is not None:
        monitor.degrees_of_freedom = max(1, guard.thermometer.degrees(atoms))
    fresh = not np.any(atoms.get_momenta())
    if fresh:
        draw_velocities(atoms, temperature, rng)
    output.parent.mkdir(parents=True, exist_ok=True)
    with Trajectory(f"{output}.traj", "w", atoms) as trajectory, open(f"{output}.csv", "w", buffering=1) as log:
        log.write(",".join(MDRow._fields) + "\n")
        rows: list[MDRow] = []

        def record(step: int) -> MDRow:
            rows.append(_md_row(atoms, step * timestep_fs / 1000.0, guard.thermometer, rows))
            log.write(",".join(f"{value:.12g}" for value in rows[-1]) + "\n")
            trajectory.write()
            return rows[-1]

        def look(step: int) -> None:
            _stop_if(guard(step), step)
            report(step, record(step) if step == steps or (step >= 0 and step % interval == 0) else None)

        try:
            if fresh and not thermostat and np.any(atoms.get_momenta()):
                guard.good = guard.good._replace(step=-equilibration_steps(timestep_fs) - 1)
                with _runaway(guard):
                    equilibrate(atoms, temperature, timestep_fs, rng, lambda left: look(-left - 1))
            dynamics = _dynamics(atoms, timestep_fs, temperature, friction_per_ps if thermostat else None, rng)
            if monitor is not None:
                dynamics.attach(monitor)
            for step in range(steps + 1):
                with _runaway(guard):
                    if step:
                        dynamics.run(1)
                    look(step)
        except RunawayError as error:
            guard.restore()
            atoms.get_potential_energy()
            if not rows or rows[-1].time_ps < guard.good.step * timestep_fs / 1000.0:
                record(guard.good.step)
            when, good = (_in_words(step, timestep_fs) for step in (error.step, guard.good.step))
            raise RunawayError(f"stopped at {when}: {error}; {_kept(output, good)}", error.step) from error
        finally:
            if rows:
                _md_picture(rows, monitor, Path(f"{output}.png"))
    return rows


def _dynamics(
    atoms: Atoms, timestep_fs: float, temperature: float, friction_per_ps: float | None, rng: np.random.Generator
) -> MolecularDynamics:
    timestep = timestep_fs * units.fs
    if friction_per_ps is None:
        return VelocityVerlet(atoms, timestep)
    return Langevin(
        atoms,
        timestep,
        temperature_K=temperature,
        friction=friction_per_ps / (1000.0 * units.fs),
        fixcm=False,  # keeping the centre of mass would not sample NVT
        rng=rng,
    )


def _stop_if(reason: str | None, step: int) -> None:
    if reason is not None:
        raise RunawayError(reason, step)


@contextlib.contextmanager
def _runaway(guard: Guard) -> Iterator[None]:
    """Atoms that one step led to where nothing can be computed have run away too."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    except StructureError as error:
        raise RunawayError(str(error), guard.good.step + 1) from error


def _in_words(step: int, timestep_fs: float) -> str:
    total = equilibration_steps(timestep_fs)
    return f"step {step}" if step >= 0 else f"step {total + 1 + step} of {total} of the equilibration"


def _kept(output: Path, step: str) -> str:
    return f"the last frame of {output}.traj is the last good one, {step}"


def _md_picture(rows: list[MDRow], monitor: UncertaintyMonitor | None, path: Path) -> None:
    columns = np.array(rows).T
    deviation = None if np.isnan(columns[6]).any() else columns[6]
    threshold = None if monitor is None else monitor.threshold
    flags = [] if monitor is None else [(flag.time_fs / 1000.0, flag.largest) for flag in monitor.flags]
    from schnet_ase.simulation.pictures import molecular_dynamics  # matplotlib is loaded where something is drawn

    molecular_dynamics(
        columns[0], columns[3], columns[1], columns[4], deviation, path, threshold=threshold, flags=flags
    )


def run_relax(
    atoms: Atoms,
    output: Path,
    *,
    fmax: float = 0.01,
    steps: int = 1000,
    report: Callable[[RelaxRow], None] = lambda row: None,
) -> list[RelaxRow]:
    """Geometry optimization with BFGS.

    Parameters
    ----------
    atoms
        With a calculator; moved in place.
    output
        Prefix of ``.xyz`` (the relaxed structure), ``.traj``, ``.csv`` and ``.png`` (the optimizer's trace).
    fmax
        eV/Å, largest force at which the structure counts as relaxed.
    steps
        Most steps.
    report
        Called with every step's row.

    Returns
    -------
    list of RelaxRow

    Raises
    ------
    SchNetError
        The forces are still larger after `steps`; the trace is written, a relaxed structure is not.
    RunawayError
        As in `run_md`; no relaxed structure is written.
    """
    atoms.get_potential_energy()  # as in `run_md`
    guard = Guard(atoms, None)
    rows: list[RelaxRow] = []
    Path(f"{output}.xyz").unlink(missing_ok=True)  # an earlier run's, which this one may end without
    output.parent.mkdir(parents=True, exist_ok=True)
    with (
        Trajectory(f"{output}.traj", "w", atoms) as trajectory,
        open(f"{output}.csv", "w", buffering=1) as log,
        BFGS(atoms, logfile=None) as optimizer,
    ):
        log.write(",".join(RelaxRow._fields) + "\n")

        def observe() -> None:
            _stop_if(guard(optimizer.nsteps), optimizer.nsteps)
            force = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
            row = RelaxRow(optimizer.nsteps, atoms.get_potential_energy(), force, _largest_deviation(atoms))
            rows.append(row)
            log.write(f"{row.step},{row.energy_eV:.8f},{force:.8g},{row.max_forces_deviation_eV_per_A:.8g}\n")
            trajectory.write()
            report(row)

        optimizer.attach(observe)
        try:
            with _runaway(guard):
                converged = optimizer.run(fmax=fmax, steps=steps)
        except RunawayError as error:
            guard.restore()
            kept = _kept(output, f"step {guard.good.step}")
            raise RunawayError(f"stopped at step {error.step}: {error}; {kept}", error.step) from error
        finally:
            if rows:
                _relax_picture(rows, fmax, Path(f"{output}.png"))
    if not converged:
        raise SchNetError(
            f"not relaxed after {steps} steps: largest force {rows[-1].max_force_eV_per_A:.3g} eV/Å, wanted {fmax}; "
            f"give more --steps or a larger --fmax; the trace is in {output}.traj"
        )
    text = io.StringIO()
    write(text, atoms, format="extxyz")
    atomic_write(f"{output}.xyz", text.getvalue())
    return rows


def _relax_picture(rows: list[RelaxRow], fmax: float, path: Path) -> None:
    energies = np.array([row.energy_eV for row in rows])
    from schnet_ase.simulation.pictures import optimization  # matplotlib is loaded where something is drawn

    optimization(energies, np.array([row.max_force_eV_per_A for row in rows]), fmax, path)


def _md_row(atoms: Atoms, time_ps: float, thermometer: Thermometer, earlier: list[MDRow]) -> MDRow:
    potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
    total = potential + kinetic
    drift = 1000.0 * (total - earlier[0].total_eV) / len(atoms) if earlier else 0.0
    return MDRow(time_ps, potential, kinetic, total, thermometer.kelvin(atoms), drift, _largest_deviation(atoms))


def _largest_deviation(atoms: Atoms) -> float:
    deviation = atoms.calc.results.get("forces_deviation")
    return float("nan") if deviation is None else float(deviation.max())
