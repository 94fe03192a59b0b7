"""Molecular dynamics that writes a trajectory, a CSV file and a figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from ase.io import Trajectory
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet

from schnet_ase.errors import RunawayError
from schnet_ase.geometry.motion import Thermometer, draw_velocities, equilibrate, equilibration_steps
from schnet_ase.monitor.guard import Guard
from schnet_ase.monitor.monitor import UncertaintyMonitor


class MDRow(NamedTuple):
    """One logged step of a run."""

    time_ps: float
    potential_eV: float
    kinetic_eV: float
    total_eV: float
    temperature_K: float
    """Temperature over the degrees of freedom that exchange energy, see `schnet_ase.geometry.motion.Thermometer`."""
    drift_meV_per_atom: float
    """Total energy less that of the first step."""
    max_forces_deviation_eV_per_A: float
    """Largest ``forces_deviation`` of the ensemble that moves the atoms, or that a monitor uses, at the steps where the
    monitor checks; NaN if there is none."""


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
    """Run velocity-Verlet (NVE) or Langevin (NVT) dynamics.

    Parameters
    ----------
    atoms
        Atoms with a calculator, which are moved in place. Atoms at rest get Maxwell-Boltzmann velocities without total
        momentum and, for a molecule, without rotation. Without a thermostat they are then equilibrated, so that the
        mean temperature at constant energy is the requested one, see `schnet_ase.geometry.motion.equilibrate`. Atoms
        with velocities keep them.
    output
        Prefix of ``.traj``, ``.csv`` (each row is written at once) and ``.png``.
    steps
        Number of steps, without those of an equilibration.
    timestep_fs
        Time step, fs.
    temperature
        Temperature in K of atoms at rest and of the thermostat.
    thermostat
        Whether to run Langevin dynamics.
    friction_per_ps
        Friction of the thermostat, 1/ps.
    seed
        Seed of the velocities, the equilibration and the thermostat.
    interval
        Number of steps between logged rows and trajectory frames.
    monitor
        Monitor for the dynamics, but not for the equilibration. If it stops the run, the files up to that step are
        written, including the figure. Its ensemble need not be the calculator, and may check at intervals.
    report
        Callback that receives, after every step, the number of the step and the row if one was logged. During an
        equilibration the numbers are negative and count up to 0.

    Returns
    -------
    list of MDRow
        The logged rows.

    Raises
    ------
    RunawayError
        A `schnet_ase.monitor.guard.Guard` stopped the run. The last frame written, and the state of `atoms`, is the
        last good frame.
    """
    atoms.get_potential_energy()  # first, so that atoms that the model refuses leave no files behind
    rng = np.random.default_rng(seed)
    guard = Guard(atoms, temperature, conserved=not thermostat)
    ending = None
    if monitor is not None:
        monitor.degrees_of_freedom = max(1, guard.thermometer.degrees(atoms))
        ending = monitor.guarded_by(guard)
    fresh = not np.any(atoms.get_momenta())
    if fresh:
        draw_velocities(atoms, temperature, rng)
    output.parent.mkdir(parents=True, exist_ok=True)
    with Trajectory(f"{output}.traj", "w", atoms) as trajectory, open(f"{output}.csv", "w", buffering=1) as log:
        log.write(",".join(MDRow._fields) + "\n")
        rows: list[MDRow] = []

        def record(step: int) -> MDRow:
            rows.append(
                _md_row(atoms, step * timestep_fs / 1000.0, guard.thermometer, rows, _deviation(atoms, monitor, step))
            )
            log.write(",".join(f"{value:.12g}" for value in rows[-1]) + "\n")
            trajectory.write()
            return rows[-1]

        def look(step: int) -> None:
            guard.check(step)
            if step < 0 and ending is not None:
                ending.check_spread(step)
            report(step, record(step) if step == steps or (step >= 0 and step % interval == 0) else None)

        try:
            if fresh and not thermostat and np.any(atoms.get_momenta()):
                guard.good = guard.good._replace(step=-equilibration_steps(timestep_fs) - 1)
                with guard.step():
                    equilibrate(atoms, temperature, timestep_fs, rng, lambda left: look(-left - 1))
            dynamics = _dynamics(atoms, timestep_fs, temperature, friction_per_ps if thermostat else None, rng)
            if monitor is not None:
                dynamics.attach(monitor)
            for step in range(steps + 1):
                with guard.step():
                    if step:
                        dynamics.run(1)
                    look(step)
        except RunawayError as error:
            guard.restore()
            atoms.get_potential_energy()
            if not rows or rows[-1].time_ps < guard.good.step * timestep_fs / 1000.0:
                record(guard.good.step)
            when, good = (_in_words(step, timestep_fs) for step in (error.step, guard.good.step))
            kept = f"the last frame of {output}.traj is the last good one, {good}"
            raise RunawayError(f"stopped at {when}: {error}; {kept}", error.step) from error
        finally:
            if rows:
                _md_picture(rows, monitor, Path(f"{output}.png"))
    return rows


def mean_temperature(kelvin: Sequence[float], thermostat: bool) -> float:
    """Return the mean over a run's rows, of their second half with a thermostat, which first has to heat the atoms."""
    settled = kelvin[len(kelvin) // 2 :] if thermostat else kelvin
    return sum(settled) / len(settled)


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
        fixcm=False,  # with a fixed centre of mass, the run would not sample the NVT ensemble
        rng=rng,
    )


def _deviation(atoms: Atoms, monitor: UncertaintyMonitor | None, step: int) -> float:
    """Return the largest ``forces_deviation`` at a step, eV/Å; NaN if no ensemble computed it."""
    known = atoms.calc.results.get("forces_deviation")
    if known is not None:
        return float(known.max())
    if monitor is not None and step == 0:  # the first row is recorded before the monitor is called
        return float(monitor.ensemble.get_property("forces_deviation", atoms).max())
    return math.nan if monitor is None else monitor.deviation_at(step)


def _in_words(step: int, timestep_fs: float) -> str:
    total = equilibration_steps(timestep_fs)
    return f"step {step}" if step >= 0 else f"step {total + 1 + step} of {total} of the equilibration"


def _md_picture(rows: list[MDRow], monitor: UncertaintyMonitor | None, path: Path) -> None:
    columns = np.array(rows).T
    deviation = None if np.isnan(columns[6]).all() else columns[6]
    threshold = None if monitor is None else monitor.threshold
    flags = [] if monitor is None else [(flag.time_fs / 1000.0, flag.largest) for flag in monitor.flags]
    from schnet_ase.simulation.pictures import molecular_dynamics  # loads matplotlib, hence only here

    molecular_dynamics(
        columns[0], columns[3], columns[1], columns[4], deviation, path, threshold=threshold, flags=flags
    )


def _md_row(atoms: Atoms, time_ps: float, thermometer: Thermometer, earlier: list[MDRow], deviation: float) -> MDRow:
    potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
    total = potential + kinetic
    drift = 1000.0 * (total - earlier[0].total_eV) / len(atoms) if earlier else 0.0
    return MDRow(time_ps, potential, kinetic, total, thermometer.kelvin(atoms), drift, deviation)
