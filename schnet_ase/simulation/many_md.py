"""Molecular dynamics of many structures over the cores."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.io import read, write

from schnet_ase.errors import RunawayError, SchNetError
from schnet_ase.output.files import atomic_write
from schnet_ase.registry.environments import Nearness, comparison
from schnet_ase.simulation.dynamics import MDRow, mean_temperature, run_md
from schnet_ase.simulation.each import KEPT, Given, Job, all_members, each


class Settings(NamedTuple):
    """What a run depends on, besides the structure; see `schnet_ase.simulation.dynamics.run_md`."""

    model: str
    """Name, folder or file of a model; all members of an entry."""
    output: str
    """Prefix of the files of each run, ``OUTPUT-NUMBER.traj``, ``.csv`` and ``.png``."""
    steps: int
    timestep_fs: float = 0.5
    temperature: float = 300.0
    thermostat: bool = False
    friction_per_ps: float = 10.0
    seed: int = 0
    """Seed of structure 0; that of structure n is larger by n."""
    interval: int = 10
    device: str | None = None
    dtype: str = "float32"


class Outcome(NamedTuple):
    """What became of the run of one structure."""

    number: int
    """Number of the structure in its file, from 0."""
    name: str
    """Its name in the file; empty if it has none."""
    formula: str
    status: str
    """``"finished"``, ``"stopped"`` (its atoms flew apart), ``"refused"`` or ``"lost"`` (its process ended)."""
    time_ps: float
    """Time of the last row."""
    mean_temperature_K: float
    """Mean over the rows, of their second half with a thermostat."""
    drift_meV_per_atom: float
    """Total energy of the last row less that of the first."""
    max_forces_deviation_eV_per_A: float
    """Largest ``forces_deviation`` of the rows; NaN for a single network."""
    unlike_training: float
    """Largest distance of an atom of the start from the entry's reference environments, see
    `schnet_ase.registry.environments.Nearness`; NaN if there are none."""
    remark: str
    """Why it did not finish; empty if it did."""


def md_many(
    frames: Sequence[Atoms],
    settings: Settings,
    *,
    workers: int | None = None,
    report: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Run dynamics of each of `frames` by itself, over the cores.

    Parameters
    ----------
    frames
        Structures; those of different molecules may be together. Those with momenta keep them.
    settings
        Model and dynamics. The files of each run are joined by ``.csv`` (a row for each structure) and ``.xyz`` (the
        last frames, with momenta, of the runs that finished). Until these are written, ``.part`` keeps which runs are
        done, and the same call resumes with the others.
    workers
        Number of processes; None: one per core. One does without another process.
    report
        Callback that receives the outcome of each structure when it is known, those of an earlier call first.

    Returns
    -------
    list of Outcome
        One for each structure, in their order. A structure that fails does not end the others.
    """
    output = Path(settings.output)
    job = Job(_mover, settings, Outcome, lambda given, status, reason: _outcome(given, status, reason, [], settings))
    outcomes = each(job, frames, output, workers=workers, report=report)
    text = io.StringIO()
    for outcome in outcomes:
        if outcome.status == "finished":
            write(text, last_frame(outcome, settings), format="extxyz")
    atomic_write(f"{output}.xyz", text.getvalue())
    text = io.StringIO()
    table: Any = csv.writer(text, lineterminator="\n")
    table.writerow(Outcome._fields)
    for outcome in outcomes:
        table.writerow([f"{value:.8f}" if isinstance(value, float) else value for value in outcome])
    atomic_write(f"{output}.csv", text.getvalue())
    Path(f"{output}{KEPT}").unlink(missing_ok=True)
    return outcomes


def last_frame(outcome: Outcome, settings: Settings) -> Atoms:
    """Return the last frame of a run, with its momenta."""
    atoms = read(f"{_prefix(outcome.number, settings)}.traj", index=-1)
    assert isinstance(atoms, Atoms)
    return atoms


def _prefix(number: int, settings: Settings) -> Path:
    return Path(f"{settings.output}-{number}")


def _mover(settings: Settings) -> Callable[[Given], Outcome]:
    """Return the function that moves one structure, with a calculator made once."""
    calculator = all_members(settings.model, settings.device, settings.dtype)
    compare = comparison(settings.model)
    return lambda given: _move(given, calculator, settings, compare)


def _move(
    given: Given, calculator: Calculator, settings: Settings, compare: Callable[[Atoms], Nearness] | None
) -> Outcome:
    atoms = given.atoms.copy()
    atoms.calc = calculator
    rows: list[MDRow] = []
    status, remark = "finished", ""
    try:
        run_md(
            atoms,
            _prefix(given.number, settings),
            steps=settings.steps,
            timestep_fs=settings.timestep_fs,
            temperature=settings.temperature,
            thermostat=settings.thermostat,
            friction_per_ps=settings.friction_per_ps,
            seed=settings.seed + given.number,
            interval=settings.interval,
            report=lambda step, row: None if row is None else rows.append(row),
        )
    except RunawayError as error:
        status, remark = "stopped", str(error)
    except (SchNetError, NotImplementedError) as error:  # an element that the model does not know, for example
        status, remark = "refused", str(error)
    far = math.nan if compare is None or status == "refused" else compare(given.atoms).largest
    return _outcome(given, status, remark, rows, settings)._replace(unlike_training=far)


def _outcome(given: Given, status: str, remark: str, rows: Sequence[MDRow], settings: Settings) -> Outcome:
    nan = math.nan
    last = rows[-1] if rows else MDRow(0.0, nan, nan, nan, nan, nan, nan)
    kelvin = mean_temperature([row.temperature_K for row in rows], settings.thermostat) if rows else nan
    return Outcome(
        given.number,
        given.name,
        given.atoms.get_chemical_formula(),
        status,
        last.time_ps,
        kelvin,
        float(last.drift_meV_per_atom),
        max((row.max_forces_deviation_eV_per_A for row in rows), default=nan),
        nan,
        remark,
    )
