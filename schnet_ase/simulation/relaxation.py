"""Geometry optimization, of the cell too, that writes a trajectory, a CSV file and a figure."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from ase.filters import FrechetCellFilter
from ase.io import Trajectory, write
from ase.optimize import BFGS

from schnet_ase.errors import RunawayError, SchNetError, StructureError
from schnet_ase.geometry.system import cell_volume
from schnet_ase.monitor.guard import Guard
from schnet_ase.output.files import atomic_write

COMPONENTS = ("xx", "yy", "zz", "yz", "xz", "xy")
"""Components of strain and stress in Voigt order."""
STRESS = 0.01
"""Largest component of the stress less the pressure, GPa, at which a cell counts as relaxed."""


class RelaxRow(NamedTuple):
    """One step of an optimization."""

    step: int
    energy_eV: float
    max_force_eV_per_A: float
    max_forces_deviation_eV_per_A: float
    """Largest ``forces_deviation`` of an ensemble; NaN for a single network."""
    volume_A3: float = math.nan
    """Volume of the cell; NaN if the cell is not relaxed."""
    max_stress_GPa: float = math.nan
    """Largest component, among those that may change, of the stress less that of the pressure; NaN likewise."""


class CellChange(NamedTuple):
    """How a cell may change during an optimization."""

    pressure: float = 0.0
    """External pressure, GPa; positive compresses."""
    mask: tuple[bool, ...] = (True,) * 6
    """Which components of the strain, see `COMPONENTS`, may change."""

    def residual(self, atoms: Atoms) -> float:
        """Return the largest component of the stress less that of the pressure, GPa, among those that may change."""
        stress = atoms.get_stress(voigt=True) / units.GPa + self.pressure * np.array([1, 1, 1, 0, 0, 0])
        return float(np.abs(stress[np.array(self.mask)]).max())


def run_relax(
    atoms: Atoms,
    output: Path,
    *,
    fmax: float = 0.01,
    steps: int = 1000,
    cell: CellChange | None = None,
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
    cell
        How the cell may change, so that the stress becomes that of the pressure; None: the cell stays.
    report
        Callback that receives the row of each step.

    Returns
    -------
    list of RelaxRow
        One row for each step.

    Raises
    ------
    StructureError
        The cell is to be relaxed, but has no volume or is not periodic where it may change.
    SchNetError
        A force, or the stress, is still larger than wanted after `steps`; the steps are written, but no relaxed
        structure.
    RunawayError
        The atoms fly apart, see `run_md`; no relaxed structure is written.
    """
    atoms.get_potential_energy()  # first, so that atoms that the model refuses leave no files behind
    if cell is not None:
        check_cell(atoms, cell)
    rows: list[RelaxRow] = []
    Path(f"{output}.xyz").unlink(missing_ok=True)  # left by an earlier run; this one may end without a structure
    output.parent.mkdir(parents=True, exist_ok=True)
    with Trajectory(f"{output}.traj", "w", atoms) as trajectory, open(f"{output}.csv", "w", buffering=1) as log:
        log.write(",".join(RelaxRow._fields) + "\n")

        def observe(row: RelaxRow) -> None:
            rows.append(row)
            log.write(f"{row.step},{row.energy_eV:.8f},{','.join(f'{value:.8g}' for value in row[2:])}\n")
            trajectory.write()
            report(row)

        try:
            converged = optimize(atoms, fmax=fmax, steps=steps, cell=cell, observe=observe)
        except RunawayError as error:
            kept = f"the last frame of {output}.traj is the last good one, step {rows[-1].step if rows else 0}"
            raise RunawayError(f"{error}; {kept}", error.step) from error
        finally:
            if rows:
                _relax_picture(rows, fmax, Path(f"{output}.png"))
    if not converged:
        raise SchNetError(f"{not_relaxed(rows[-1], fmax)}; the trace is in {output}.traj")
    text = io.StringIO()
    write(text, atoms, format="extxyz")
    atomic_write(f"{output}.xyz", text.getvalue())
    return rows


def optimize(
    atoms: Atoms,
    *,
    fmax: float,
    steps: int,
    cell: CellChange | None = None,
    observe: Callable[[RelaxRow], None] = lambda row: None,
) -> bool:
    """Optimize a geometry in place, without files.

    Parameters
    ----------
    atoms, fmax, steps, cell
        See `run_relax`.
    observe
        Callback that receives the row of each step, the start included.

    Returns
    -------
    bool
        Whether the forces, and the stress, became as small as wanted.

    Raises
    ------
    RunawayError
        The atoms fly apart; `atoms` is then the last good frame.
    """
    guard = Guard(atoms, None)
    moved: Any = atoms  # the types of the optimizers do not know of filters
    if cell is not None:
        moved = FrechetCellFilter(atoms, mask=list(cell.mask), scalar_pressure=cell.pressure * units.GPa)
    try:
        with guard.step(), BFGS(moved, logfile=None) as optimizer:
            # The filter's own criterion mixes forces with stress times volume, so ours is checked instead of it.
            for _ in optimizer.irun(fmax=0.0, steps=steps):
                guard.check(optimizer.nsteps)
                row = _row(atoms, optimizer.nsteps, cell)
                observe(row)
                if row.max_force_eV_per_A < fmax and not row.max_stress_GPa > STRESS:
                    return True
    except RunawayError as error:
        guard.restore()
        raise RunawayError(f"stopped at step {error.step}: {error}", error.step) from error
    return False


def not_relaxed(row: RelaxRow, fmax: float) -> str:
    """Return in words what is still too large after the last step."""
    force = f"largest force {row.max_force_eV_per_A:.3g} eV/Å, wanted {fmax}"
    stress = "" if math.isnan(row.max_stress_GPa) else f", stress off by {row.max_stress_GPa:.3g} GPa, wanted {STRESS}"
    return f"not relaxed after {row.step} steps: {force}{stress}; give more --steps or a larger --fmax"


def check_cell(atoms: Atoms, cell: CellChange) -> None:
    """Refuse to relax a cell that has no volume, or that is not periodic in a direction that may change.

    Raises
    ------
    StructureError
        It is such a cell.
    """
    if not cell_volume(atoms.cell.array) or not atoms.pbc.any():
        raise StructureError(
            f"a cell is relaxed in a periodic structure; this one has pbc {atoms.pbc.tolist()} and a cell of volume "
            f"{cell_volume(atoms.cell.array):g} Å³; leave out --cell, or set both"
        )
    if not atoms.pbc.all() and all(cell.mask):
        raise StructureError(
            f"the structure is periodic in {atoms.pbc.sum()} of 3 directions; say which components of the cell may "
            "change, such as --mask xx,yy,xy for a layer in the xy plane"
        )


def _row(atoms: Atoms, step: int, cell: CellChange | None) -> RelaxRow:
    force = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
    known = atoms.calc.results.get("forces_deviation")
    deviation = math.nan if known is None else float(known.max())
    row = RelaxRow(step, atoms.get_potential_energy(), force, deviation)
    return row if cell is None else row._replace(volume_A3=atoms.get_volume(), max_stress_GPa=cell.residual(atoms))


def _relax_picture(rows: list[RelaxRow], fmax: float, path: Path) -> None:
    energies = np.array([row.energy_eV for row in rows])
    from schnet_ase.simulation.pictures import optimization  # loads matplotlib, hence only here

    optimization(energies, np.array([row.max_force_eV_per_A for row in rows]), fmax, path)
