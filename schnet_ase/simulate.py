"""Molecular dynamics and geometry optimization with everything written down: trajectory, CSV and picture."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from ase.io import Trajectory, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from schnet_ase.errors import SchNetError
from schnet_ase.files import atomic_write
from schnet_ase.monitor import UncertaintyMonitor
from schnet_ase.plots import molecular_dynamics, optimization


class MDRow(NamedTuple):
    """One logged step of a run."""

    time_ps: float
    potential_eV: float
    kinetic_eV: float
    total_eV: float
    temperature_K: float
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
        for a molecule, without rotation; others keep theirs.
    output
        Prefix of ``.traj``, ``.csv`` (a row as soon as it is known) and ``.png``.
    steps
        Number of steps.
    timestep_fs
        fs.
    temperature
        K, of the initial velocities and of the thermostat. From a relaxed structure about half of the initial kinetic
        energy goes into the bonds.
    thermostat
        Whether to run Langevin dynamics.
    friction_per_ps
        1/ps, of the thermostat.
    seed
        Of the velocities and the thermostat.
    interval
        Steps between logged rows and trajectory frames.
    monitor
        Attached to the dynamics; if it stops the run, what there is by then is written, the picture too.
    report
        Called after every step, with the row where one was logged.

    Returns
    -------
    list of MDRow
    """
    atoms.get_potential_energy()  # atoms that the model refuses leave no file in the way of the next run
    rng = np.random.default_rng(seed)
    if not np.any(atoms.get_momenta()):
        thermalize_momenta(atoms, temperature_K=temperature, rng=rng)
        Stationary(atoms, preserve_temperature=len(atoms) > 1)  # of one atom nothing is left to scale
        if not atoms.pbc.any() and len(atoms) > 2:
            ZeroRotation(atoms)
    timestep = timestep_fs * units.fs
    dynamics: Langevin | VelocityVerlet
    if thermostat:
        dynamics = Langevin(
            atoms,
            timestep,
            temperature_K=temperature,
            friction=friction_per_ps / (1000.0 * units.fs),
            fixcm=False,  # keeping the centre of mass would not sample NVT
            rng=rng,
        )
    else:
        dynamics = VelocityVerlet(atoms, timestep)
    if monitor is not None:
        dynamics.attach(monitor)
    rows: list[MDRow] = []
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with Trajectory(f"{output}.traj", "w", atoms) as trajectory, open(f"{output}.csv", "w", buffering=1) as log:
            log.write(",".join(MDRow._fields) + "\n")
            for step in range(steps + 1):
                if step:
                    dynamics.run(1)
                row = None
                if step % interval == 0 or step == steps:
                    row = _md_row(atoms, step * timestep_fs / 1000.0, rows)
                    rows.append(row)
                    log.write(",".join(f"{value:.12g}" for value in row) + "\n")
                    trajectory.write()
                report(step, row)
    finally:
        if rows:
            _md_picture(rows, monitor, Path(f"{output}.png"))
    return rows


def _md_picture(rows: list[MDRow], monitor: UncertaintyMonitor | None, path: Path) -> None:
    columns = np.array(rows).T
    deviation = None if np.isnan(columns[6]).any() else columns[6]
    threshold = None if monitor is None else monitor.threshold
    flags = [] if monitor is None else [(flag.time_fs / 1000.0, flag.largest) for flag in monitor.flags]
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
    """
    atoms.get_potential_energy()  # as in `run_md`
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
            force = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
            row = RelaxRow(optimizer.nsteps, atoms.get_potential_energy(), force, _largest_deviation(atoms))
            rows.append(row)
            log.write(f"{row.step},{row.energy_eV:.8f},{force:.8g},{row.max_forces_deviation_eV_per_A:.8g}\n")
            trajectory.write()
            report(row)

        optimizer.attach(observe)
        converged = optimizer.run(fmax=fmax, steps=steps)
    optimization(
        np.array([r.energy_eV for r in rows]),
        np.array([r.max_force_eV_per_A for r in rows]),
        fmax,
        Path(f"{output}.png"),
    )
    if not converged:
        raise SchNetError(
            f"not relaxed after {steps} steps: largest force {rows[-1].max_force_eV_per_A:.3g} eV/Å, wanted {fmax}; "
            f"give more --steps or a larger --fmax; the trace is in {output}.traj"
        )
    text = io.StringIO()
    write(text, atoms, format="extxyz")
    atomic_write(f"{output}.xyz", text.getvalue())
    return rows


def _md_row(atoms: Atoms, time_ps: float, earlier: list[MDRow]) -> MDRow:
    potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
    total = potential + kinetic
    drift = 1000.0 * (total - earlier[0].total_eV) / len(atoms) if earlier else 0.0
    return MDRow(time_ps, potential, kinetic, total, atoms.get_temperature(), drift, _largest_deviation(atoms))


def _largest_deviation(atoms: Atoms) -> float:
    deviation = atoms.calc.results.get("forces_deviation")
    return float("nan") if deviation is None else float(deviation.max())
