"""Geometry optimization that writes a trajectory, a CSV file and a figure."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.io import Trajectory, write
from ase.optimize import BFGS

from schnet_ase.errors import RunawayError, SchNetError
from schnet_ase.monitor.guard import Guard
from schnet_ase.output.files import atomic_write


class RelaxRow(NamedTuple):
    """One step of an optimization."""

    step: int
    energy_eV: float
    max_force_eV_per_A: float
    max_forces_deviation_eV_per_A: float
    """Largest ``forces_deviation`` of an ensemble; NaN for a single network."""


def run_relax(
    atoms: Atoms,
    output: Path,
    *,
    fmax: float = 0.01,
    steps: int = 1000,
    report: Callable[[RelaxRow], None] = lambda row: None,
) -> list[RelaxRow]:
    """Optimize a geometry with BFGS.

    Parameters
    ----------
    atoms
        Atoms with a calculator, which are moved in place.
    output
        Prefix of ``.xyz`` (the relaxed structure), ``.traj``, ``.csv`` and ``.png`` (the steps of the optimizer).
    fmax
        Largest force in eV/Å at which the structure counts as relaxed.
    steps
        Largest number of steps.
    report
        Callback that receives the row of each step.

    Returns
    -------
    list of RelaxRow
        One row for each step.

    Raises
    ------
    SchNetError
        A force is still larger than `fmax` after `steps`; the steps are written, but no relaxed structure.
    RunawayError
        The atoms fly apart, see `run_md`; no relaxed structure is written.
    """
    atoms.get_potential_energy()  # first, so that atoms that the model refuses leave no files behind
    guard = Guard(atoms, None)
    rows: list[RelaxRow] = []
    Path(f"{output}.xyz").unlink(missing_ok=True)  # left by an earlier run; this one may end without a structure
    output.parent.mkdir(parents=True, exist_ok=True)
    with (
        Trajectory(f"{output}.traj", "w", atoms) as trajectory,
        open(f"{output}.csv", "w", buffering=1) as log,
        BFGS(atoms, logfile=None) as optimizer,
    ):
        log.write(",".join(RelaxRow._fields) + "\n")

        def observe() -> None:
            guard.check(optimizer.nsteps)
            force = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
            known = atoms.calc.results.get("forces_deviation")
            deviation = math.nan if known is None else float(known.max())
            row = RelaxRow(optimizer.nsteps, atoms.get_potential_energy(), force, deviation)
            rows.append(row)
            log.write(f"{row.step},{row.energy_eV:.8f},{force:.8g},{row.max_forces_deviation_eV_per_A:.8g}\n")
            trajectory.write()
            report(row)

        optimizer.attach(observe)
        try:
            with guard.step():
                converged = optimizer.run(fmax=fmax, steps=steps)
        except RunawayError as error:
            guard.restore()
            kept = f"the last frame of {output}.traj is the last good one, step {guard.good.step}"
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
    from schnet_ase.simulation.pictures import optimization  # loads matplotlib, hence only here

    optimization(energies, np.array([row.max_force_eV_per_A for row in rows]), fmax, path)
