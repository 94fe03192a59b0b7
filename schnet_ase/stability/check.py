"""Dynamics of an entry, written into its card: is it stable, and how long does a step take?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from schnet_ase.errors import RegistryError
from schnet_ase.output.machine import processor
from schnet_ase.output.progress import Progress
from schnet_ase.registry.applicability import check_forces
from schnet_ase.registry.card import CARD_FILE, Card, Dynamics, OtherRun, read_card, write_card
from schnet_ase.registry.lookup import find_card, get_card
from schnet_ase.stability.bonds import BROKEN
from schnet_ase.stability.pool import run_jobs
from schnet_ase.stability.runs import Job, Run, make_job
from schnet_ase.stability.thermostats import TIMESTEP_FS
from schnet_ase.stability.times import member_times


class Checked(NamedTuple):
    """What came of a check."""

    card: Card
    """With the result on it."""
    runs: tuple[str, ...]
    """A line for each run."""
    file: Path
    """The card that was written."""
    obstacle: OSError | None
    """Why that is not the entry's own."""

    def verdict(self) -> str:
        """Whether a bond broke, in a line."""
        dynamics = self.card.dynamics
        assert dynamics is not None
        if reason := dynamics.broken():
            return f"{self.card.name} is experimental: {reason}"
        runs = "" if not dynamics.others else f"{len(dynamics.others) + 1} runs of "
        return f"{self.card.name}: no bond broke in {runs}{dynamics.picoseconds:g} ps at {dynamics.temperature:g} K"


def check_entry(
    name: str | os.PathLike[str],
    *,
    command: str,
    temperature: float = 500.0,
    picoseconds: float = 100.0,
    seeds: int = 1,
    molecules: Sequence[str] = (),
    workers: int = 1,
    folder: Path | None = None,
) -> Checked:
    """Run an entry's dynamics until a bond breaks or the time is over, and write its card.

    Runs start from the relaxed structure on the card, with the ensemble, in steps of 0.5 fs: a free molecule that is
    not linear with a Nosé-Hoover chain, anything else with a Langevin thermostat. A run is flagged at the first frame
    whose ``forces_deviation`` exceeds the threshold of the calibration. Then the members are timed. An entry whose
    bonds break is marked as experimental; a mark stays, since a gentler check says nothing against it, until the entry
    is trained anew.

    Parameters
    ----------
    name
        Name or folder of an entry.
    command
        What to state on the card as what made the run.
    temperature
        K.
    picoseconds
        Length of each run.
    seeds
        Number of runs from each structure, with seeds from 0 on.
    molecules
        Entries whose structures to start from besides: of molecules that this entry knows too. They are added to the
        runs on the card; where those are of this length, temperature and threshold, they are not made again.
    workers
        Runs at a time, each on one thread where there are several.
    folder
        Where runs are kept, by which an interrupted check resumes, and where the card goes if the entry's folder cannot
        be written. Default: ``runs/NAME-check``.

    Raises
    ------
    RegistryError
        There is no such entry, or it was changed in the meantime.
    StructureError
        It was taught no forces, or a structure has no bonds.
    """
    card = _entry(name)
    check_forces(card)
    folder = folder or Path("runs") / f"{card.name}-check"
    threshold = None if card.calibration is None else card.calibration.threshold()
    before = card.dynamics
    if before is not None and (before.temperature, before.picoseconds, before.threshold) != (
        temperature,
        picoseconds,
        threshold,
    ):
        before = None
    starts = [card] if before is None or not molecules else []
    jobs = [
        make_job(card, start, temperature, picoseconds, seed)
        for start in (*starts, *(_entry(molecule) for molecule in molecules))
        for seed in range(seeds)
    ]
    lines: list[str] = []
    own, others = None, {} if before is None else {(o.structure, o.seed): o for o in before.others}
    with Progress(sum(job.steps for job in jobs), "dynamics") as progress:
        for job, run in run_jobs(jobs, folder, workers, progress):
            lines.append(_line(job, run, seeds))
            structure = None if job.name == card.name else job.name
            found = OtherRun(structure, run.picoseconds, _flagged(run, threshold), job.seed)
            if structure is None and not job.seed:
                own = found
            else:
                others[structure, job.seed] = found
    in_order = tuple(others[key] for key in sorted(others, key=lambda key: (key[0] or "", key[1])))
    if own is None:
        assert before is not None
        return _write(card, replace(before, others=in_order), folder, lines)
    times = member_times(card)
    dynamics = Dynamics(
        temperature=temperature,
        picoseconds=picoseconds,
        stable=own.stable,
        threshold=threshold,
        flagged=own.flagged,
        milliseconds=times.members,
        yardstick=times.yardstick,
        processor=processor(),
        command=command,
        others=in_order,
    )
    return _write(card, dynamics, folder, lines)


def time_entry(name: str | os.PathLike[str], folder: Path | None = None) -> Checked:
    """Time the members of an entry again and write that into its card, beside the runs that are there.

    Raises
    ------
    RegistryError
        There is no such entry, or its card has no run.
    """
    card = _entry(name)
    if card.dynamics is None:
        raise RegistryError(f"{card.name}: its card has no run of dynamics to put times beside; check it first")
    times = member_times(card)
    timed = replace(card.dynamics, milliseconds=times.members, yardstick=times.yardstick, processor=processor())
    return _write(card, timed, folder or Path("runs") / f"{card.name}-check", [])


def _entry(name: str | os.PathLike[str]) -> Card:
    card = find_card(name)
    if card is None and Path(name).is_dir():
        raise RegistryError(f"{name}: no {CARD_FILE} in it; expected an entry, such as schnet-ase crossval makes")
    return card or get_card(os.fspath(name))


def _line(job: Job, run: Run, seeds: int) -> str:
    which = f"{job.name}, seed {job.seed}" if seeds > 1 else job.name
    if not run.collapsed:
        return f"{which}: whole for {run.picoseconds:g} ps at {run.temperature:.0f} K"
    if job.bonds.off(run.last) <= BROKEN:  # atoms met, or flew to infinity, within one step
        return f"{which}: lost after {run.picoseconds:.3f} ps"
    return f"{which}: the bond {job.bonds.worst(run.last)} broke after {run.picoseconds:.3f} ps"


def _flagged(run: Run, threshold: float | None) -> float | None:
    """ps until the first flag."""
    flags = [] if threshold is None else run.flags(threshold)
    return flags[0] * TIMESTEP_FS / 1000.0 if flags else None


def _write(card: Card, dynamics: Dynamics, folder: Path, runs: list[str]) -> Checked:
    newest = read_card(card.path)  # it may have been calibrated meanwhile
    if newest.members != card.members:
        raise RegistryError(f"{card.path}: the entry was changed while it was checked; check it again")
    new = replace(newest, dynamics=dynamics, experimental=dynamics.broken() or newest.experimental)
    try:
        write_card(new, card.path)
    except OSError as error:
        write_card(new, folder)
        return Checked(new, tuple(runs), folder / CARD_FILE, error)
    return Checked(new, tuple(runs), card.path / CARD_FILE, None)
