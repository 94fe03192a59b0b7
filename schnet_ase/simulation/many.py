"""Relaxation of many structures over the cores."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.io import read, write

from schnet_ase.errors import RunawayError, SchNetError
from schnet_ase.output.files import atomic_write
from schnet_ase.registry.environments import Nearness, comparison
from schnet_ase.registry.lookup import owning_card
from schnet_ase.simulation.each import KEPT, Given, Job, all_members, each
from schnet_ase.simulation.minima import minima_deviation, single_members
from schnet_ase.simulation.relaxation import CellChange, RelaxRow, not_relaxed, optimize


class Settings(NamedTuple):
    """What the result of a structure depends on, besides the structure."""

    model: str
    """Name, folder or file of a model; all members of an entry."""
    device: str | None = None
    dtype: str = "float64"
    fmax: float = 0.01
    """Largest force in eV/Å at which a structure counts as relaxed."""
    steps: int = 1000
    """Largest number of steps."""
    cell: CellChange | None = None


class Outcome(NamedTuple):
    """What became of one structure."""

    number: int
    """Number of the structure in its file, from 0."""
    name: str
    """Its name in the file; empty if it has none."""
    formula: str
    status: str
    """``"relaxed"``, ``"unfinished"`` (too few steps), ``"stopped"`` (its atoms flew apart), ``"refused"`` or
    ``"lost"`` (its process ended)."""
    steps: int
    start_energy_eV: float
    energy_eV: float
    energy_uncertainty_eV: float
    """Calibrated half-width; NaN without a calibration."""
    max_force_eV_per_A: float
    max_forces_deviation_eV_per_A: float
    """Largest ``forces_deviation`` at the end; NaN for a single network."""
    minima_deviation_A: float
    """How far from the relaxed structure the members' own minima are, see `minima_deviation`; NaN for a single network
    and where nothing is relaxed."""
    unlike_training: float
    """Largest distance of an atom of the start from the entry's reference environments, in units of their limit, see
    `schnet_ase.registry.environments.Nearness`; NaN if there are none."""
    remark: str
    """Why it failed; empty if it is relaxed."""
    frame: str
    """The last good frame, as extxyz; empty if the model refused the structure."""

    def atoms(self) -> Atoms:
        """Return the last good frame."""
        return cast("Atoms", read(io.StringIO(self.frame), format="extxyz"))


def relax_many(
    frames: Sequence[Atoms],
    settings: Settings,
    output: Path,
    *,
    workers: int | None = None,
    report: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Relax each of `frames` by itself, over the cores.

    Parameters
    ----------
    frames
        Structures; those of different molecules may be together.
    settings
        Model and optimizer.
    output
        Prefix of ``.csv`` (a row for each structure), ``.xyz`` (the relaxed ones) and ``.png``. Until these are
        written, ``.part`` keeps what is done, and the same call resumes from it.
    workers
        Number of processes; None: one per core. One does without another process.
    report
        Callback that receives the outcome of each structure when it is known, those of an earlier call first.

    Returns
    -------
    list of Outcome
        One for each structure, in their order. A structure that fails does not end the others.
    """
    job = Job(_relaxer, settings, Outcome, _failed)
    outcomes = each(job, frames, output, workers=workers, report=report)
    _write(outcomes, settings, output)
    Path(f"{output}{KEPT}").unlink(missing_ok=True)
    return outcomes


def above_lowest(outcomes: Sequence[Outcome]) -> list[float]:
    """Return each energy above the lowest of the same formula among the relaxed ones, eV; NaN where it is not
    relaxed."""
    lowest: dict[str, float] = {}
    for outcome in outcomes:
        if outcome.status == "relaxed":
            lowest[outcome.formula] = min(outcome.energy_eV, lowest.get(outcome.formula, math.inf))
    return [o.energy_eV - lowest[o.formula] if o.status == "relaxed" else math.nan for o in outcomes]


def _relaxer(settings: Settings) -> Callable[[Given], Outcome]:
    """Return the function that relaxes one structure, with a calculator made once."""
    calculator = all_members(settings.model, settings.device, settings.dtype)
    members = single_members(settings.model, settings.device, settings.dtype)
    compare = comparison(settings.model)
    return lambda given: _relax(given, calculator, members, settings, compare)


def _relax(
    given: Given,
    calculator: Calculator,
    members: Sequence[Calculator],
    settings: Settings,
    compare: Callable[[Atoms], Nearness] | None,
) -> Outcome:
    atoms = given.atoms.copy()
    atoms.calc = calculator
    rows: list[RelaxRow] = []
    status, remark = "relaxed", ""
    try:
        if not optimize(atoms, fmax=settings.fmax, steps=settings.steps, cell=settings.cell, observe=rows.append):
            status, remark = "unfinished", not_relaxed(rows[-1], settings.fmax)
    except RunawayError as error:
        status, remark = "stopped", str(error)
    except (SchNetError, NotImplementedError) as error:  # an element that the model does not know, for example
        status, remark = "refused", str(error)
    if not rows:
        return _failed(given, status, remark)
    atoms.get_forces()  # of the last good frame, if the atoms flew apart
    width = calculator.results.get("energy_uncertainty", math.nan)
    if hasattr(calculator, "annotate"):
        calculator.annotate(atoms)
    text = io.StringIO()
    write(text, atoms, format="extxyz")
    last = rows[-1]
    return Outcome(
        given.number,
        given.name,
        given.atoms.get_chemical_formula(),
        status,
        last.step,
        rows[0].energy_eV,
        last.energy_eV,
        float(width),
        last.max_force_eV_per_A,
        last.max_forces_deviation_eV_per_A,
        minima_deviation(atoms, members, settings.fmax) if status == "relaxed" else math.nan,
        math.nan if compare is None else compare(given.atoms).largest,
        remark,
        text.getvalue(),
    )


def _failed(given: Given, status: str, remark: str) -> Outcome:
    nan, formula = math.nan, given.atoms.get_chemical_formula()
    return Outcome(given.number, given.name, formula, status, 0, nan, nan, nan, nan, nan, nan, nan, remark, "")


def _write(outcomes: list[Outcome], settings: Settings, output: Path) -> None:
    text = io.StringIO()
    table: Any = csv.writer(text, lineterminator="\n")
    names = [name for name in Outcome._fields if name not in ("remark", "frame")]
    table.writerow([*names, "above_lowest_eV", "remark"])
    relative = above_lowest(outcomes)
    for outcome, above in zip(outcomes, relative, strict=True):
        values = [*(getattr(outcome, name) for name in names), above, outcome.remark]
        table.writerow([f"{value:.8f}" if isinstance(value, float) else value for value in values])
    atomic_write(f"{output}.xyz", "".join(outcome.frame for outcome in outcomes if outcome.status == "relaxed"))
    card = owning_card(settings.model)
    threshold = None if card is None or card.calibration is None else card.calibration.threshold()
    from schnet_ase.simulation.pictures import relaxations  # loads matplotlib, hence only here

    relaxations(outcomes, relative, threshold, Path(f"{output}.png"))
    atomic_write(f"{output}.csv", text.getvalue())
