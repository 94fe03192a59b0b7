"""Relaxation of many structures over the cores, each kept when it is done, so that a killed run resumes."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.io import read, write

from schnet_ase.errors import RunawayError, SchNetError
from schnet_ase.output.files import atomic_write, sha256
from schnet_ase.output.machine import available_cores
from schnet_ase.registry.environments import Nearness, comparison
from schnet_ase.registry.loading import locate_members
from schnet_ase.registry.lookup import owning_card
from schnet_ase.simulation.relaxation import CellChange, RelaxRow, not_relaxed, optimize
from schnet_ase.simulation.workers import Failed, work

KEPT = ".part"
"""Suffix of the file that keeps the structures done so far."""


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
    unlike_training: float
    """Largest distance of an atom of the start from the entry's reference environments, in units of their limit, see
    `schnet_ase.registry.environments.Nearness`; NaN if there are none."""
    remark: str
    """Why it failed; empty if it is relaxed."""
    frame: str
    """The last good frame, as extxyz; empty if the model refused the structure."""

    def label(self) -> str:
        """Return the number of the structure, with its name if it has one."""
        return f"structure {self.number}{f' ({self.name})' if self.name else ''}"

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
    kept = _Kept(Path(f"{output}{KEPT}"), _identity(frames, settings))
    done = {outcome.number: outcome for outcome in kept.outcomes()}
    for outcome in done.values():
        report(outcome)
    left = [index for index in range(len(frames)) if index not in done]
    # The first is relaxed in this process, so that the engine is compiled once and not by every process at once.
    for part, processes in ((left[:1], 1), (left[1:], workers or available_cores())):
        for place, found in work(_relaxer, settings, [frames[index] for index in part], processes):
            index = part[place]
            outcome = _lost(index, frames[index], found) if isinstance(found, Failed) else found._replace(number=index)
            done[index] = outcome
            kept.add(outcome)
            report(outcome)
    outcomes = [done[index] for index in range(len(frames))]
    _write(outcomes, settings, output)
    kept.path.unlink(missing_ok=True)
    return outcomes


def above_lowest(outcomes: Sequence[Outcome]) -> list[float]:
    """Return each energy above the lowest of the same formula among the relaxed ones, eV; NaN where it is not
    relaxed."""
    lowest: dict[str, float] = {}
    for outcome in outcomes:
        if outcome.status == "relaxed":
            lowest[outcome.formula] = min(outcome.energy_eV, lowest.get(outcome.formula, math.inf))
    return [o.energy_eV - lowest[o.formula] if o.status == "relaxed" else math.nan for o in outcomes]


def _relaxer(settings: Settings) -> Callable[[Atoms], Outcome]:
    """Return the function that relaxes one structure, with a calculator made once."""
    from schnet_ase.calculators.ensemble import SchNetEnsembleCalculator
    from schnet_ase.calculators.single import SchNetCalculator

    several = len(locate_members(settings.model)) > 1
    calculator = (SchNetEnsembleCalculator if several else SchNetCalculator)(
        settings.model if several else locate_members(settings.model)[0].path,
        device=settings.device,
        dtype=settings.dtype,
        threads=1,
    )
    compare = comparison(settings.model)
    return lambda atoms: _relax(atoms, calculator, settings, compare)


def _relax(
    given: Atoms, calculator: Calculator, settings: Settings, compare: Callable[[Atoms], Nearness] | None
) -> Outcome:
    atoms = given.copy()
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
        return _failed(0, given, status, remark)
    atoms.get_forces()  # of the last good frame, if the atoms flew apart
    width = calculator.results.get("energy_uncertainty", math.nan)
    if hasattr(calculator, "annotate"):
        calculator.annotate(atoms)
    text = io.StringIO()
    write(text, atoms, format="extxyz")
    last = rows[-1]
    return Outcome(
        0,
        str(given.info.get("name", "")),
        given.get_chemical_formula(),
        status,
        last.step,
        rows[0].energy_eV,
        last.energy_eV,
        float(width),
        last.max_force_eV_per_A,
        last.max_forces_deviation_eV_per_A,
        math.nan if compare is None else compare(given).largest,
        remark,
        text.getvalue(),
    )


def _lost(number: int, atoms: Atoms, failed: Failed) -> Outcome:
    return _failed(number, atoms, "lost", failed.reason)


def _failed(number: int, atoms: Atoms, status: str, remark: str) -> Outcome:
    nan, name = math.nan, str(atoms.info.get("name", ""))
    return Outcome(number, name, atoms.get_chemical_formula(), status, 0, nan, nan, nan, nan, nan, nan, remark, "")


def _identity(frames: Sequence[Atoms], settings: Settings) -> str:
    """Return a hash of everything that the results depend on."""
    digest = hashlib.sha256(repr(settings._replace(model="")).encode())
    digest.update(sha256(*(member.path for member in locate_members(settings.model))).encode())
    for atoms in frames:
        for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(repr([constraint.todict() for constraint in atoms.constraints]).encode())
    return digest.hexdigest()


class _Kept:
    """File with one line of JSON for each structure that is done; the first line is the identity of the run."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        whole = path.read_text().splitlines(keepends=True) if path.exists() else []
        # A process that is killed may leave half a line at the end.
        self._lines = [line for line in whole if line.endswith("\n")]
        if self._lines[:1] != [f"{identity}\n"]:
            self._lines = [f"{identity}\n"]
        atomic_write(path, "".join(self._lines))

    def outcomes(self) -> list[Outcome]:
        return [Outcome(*json.loads(line)) for line in self._lines[1:]]

    def add(self, outcome: Outcome) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(tuple(outcome)) + "\n")
            file.flush()
            os.fsync(file.fileno())


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
