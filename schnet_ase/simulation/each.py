"""Do the same with each of many structures, over the cores; a killed call resumes with those that are not done."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from schnet_ase.output.files import atomic_write, sha256
from schnet_ase.output.machine import available_cores
from schnet_ase.registry.loading import locate_members
from schnet_ase.simulation.sdf import UNREADABLE
from schnet_ase.simulation.workers import Failed, work

KEPT = ".part"
"""Suffix of the file that keeps the structures done so far."""


class Numbered(Protocol):
    """A named tuple of text and numbers, which says what became of one structure."""

    @property
    def number(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


class OfModel(Protocol):
    """A named tuple of settings."""

    @property
    def model(self) -> str: ...


class Given(NamedTuple):
    """One structure of a file."""

    number: int
    """From 0."""
    atoms: Atoms

    @property
    def name(self) -> str:
        """Its name in the file; empty if it has none."""
        return str(self.atoms.info.get("name", ""))


class Labelled(Protocol):
    """A structure of a file, or what became of it."""

    @property
    def number(self) -> int: ...

    @property
    def name(self) -> str: ...


def label(structure: Labelled) -> str:
    """Return the number of a structure, with its name if it has one."""
    return f"structure {structure.number}{f' ({structure.name})' if structure.name else ''}"


S = TypeVar("S", bound=OfModel)
R = TypeVar("R", bound=Numbered)


class Job(NamedTuple, Generic[S, R]):
    """What to do with each structure."""

    make: Callable[[S], Callable[[Given], R]]
    """Function of a module that makes the function; each process calls it once."""
    settings: S
    kind: Callable[..., R]
    """Class of the outcomes."""
    failed: Callable[[Given, str, str], R]
    """Function that makes the outcome of a structure that was not run, from status and reason."""


def each(
    job: Job[S, R], frames: Sequence[Atoms], output: Path, *, workers: int | None, report: Callable[[R], None]
) -> list[R]:
    """Do the job with each of `frames`.

    Parameters
    ----------
    job, frames
        What is done, and with what.
    output
        Prefix of ``.part``, which keeps what is done, until the caller removes it; the same call resumes from it.
    workers
        Number of processes; None: one per core. One does without another process.
    report
        Callback that receives each outcome when it is known, those of an earlier call first.

    Returns
    -------
    list
        One outcome for each structure, in their order.
    """
    kept = _Kept(Path(f"{output}{KEPT}"), _identity(frames, job.settings))
    done = {outcome.number: outcome for outcome in kept.outcomes(job.kind)}
    for outcome in done.values():
        report(outcome)
    left = []

    def keep(outcome: R) -> None:
        done[outcome.number] = outcome
        kept.add(outcome)
        report(outcome)

    for given in (Given(number, atoms) for number, atoms in enumerate(frames) if number not in done):
        if UNREADABLE in given.atoms.info:
            keep(job.failed(given, "refused", given.atoms.info[UNREADABLE]))
        else:
            left.append(given)
    # The first is done in this process, so that the engine is compiled once and not by every process at once.
    for part, processes in ((left[:1], 1), (left[1:], workers or available_cores())):
        for place, found in work(job.make, job.settings, part, processes):
            keep(job.failed(part[place], "lost", found.reason) if isinstance(found, Failed) else found)
    return [done[number] for number in range(len(frames))]


def all_members(model: str, device: str | None, dtype: str) -> Calculator:
    """Return a calculator of all members of `model` that takes one thread."""
    from schnet_ase.calculators.ensemble import SchNetEnsembleCalculator
    from schnet_ase.calculators.single import SchNetCalculator

    members = locate_members(model)
    if len(members) > 1:
        return SchNetEnsembleCalculator(model, device=device, dtype=dtype, threads=1)
    return SchNetCalculator(members[0].path, device=device, dtype=dtype, threads=1)


def _identity(frames: Sequence[Atoms], settings: Any) -> str:
    """Return a hash of everything that the results depend on."""
    digest = hashlib.sha256(repr(settings._replace(model="")).encode())
    digest.update(sha256(*(member.path for member in locate_members(settings.model))).encode())
    for atoms in frames:
        moving = atoms.positions, atoms.get_momenta(), atoms.get_masses()
        for array in (atoms.numbers, *moving, atoms.cell.array, atoms.pbc):
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
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, "".join(self._lines))

    def outcomes(self, kind: Callable[..., R]) -> list[R]:
        return [kind(*json.loads(line)) for line in self._lines[1:]]

    def add(self, outcome: Numbered) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(tuple(outcome)) + "\n")
            file.flush()
            os.fsync(file.fileno())
