"""Check the stability and the speed of an entry's dynamics, and write the results into its card."""

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
from schnet_ase.registry.card import CARD_FILE, Card, read_card, write_card
from schnet_ase.registry.dynamics import Dynamics, OtherRun
from schnet_ase.registry.lookup import find_card, get_card
from schnet_ase.stability.bonds import BROKEN
from schnet_ase.stability.pool import run_jobs
from schnet_ase.stability.runs import Job, Run, make_job
from schnet_ase.stability.thermostats import TIMESTEP_FS
from schnet_ase.stability.times import member_times


class Checked(NamedTuple):
    """Result of a check."""

    card: Card
    """Card with the result."""
    runs: tuple[str, ...]
    """One line for each run."""
    file: Path
    """File that the card was written to."""
    obstacle: OSError | None
    """Error for which the card could not be written to the entry's folder; None if it was."""

    def verdict(self) -> str:
        """Return one line that says whether a bond broke."""
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
    """Run an entry's dynamics until a bond breaks or the requested time is over, and write the result into its card.

    Runs start from the relaxed structure on the card, with the ensemble, in steps of 0.5 fs. A free nonlinear molecule
    gets a Nosé-Hoover chain, anything else a Langevin thermostat. A run is flagged at the first frame whose
    ``forces_deviation`` exceeds the threshold of the calibration. Then the members are timed. An entry whose bonds
    break is marked as experimental. The mark stays until the entry is trained again, since a gentler check cannot
    refute it.

    Parameters
    ----------
    name
        Name or folder of an entry.
    command
        Command to state on the card.
    temperature
        Temperature, K.
    picoseconds
        Length of each run.
    seeds
        Number of runs from each structure, with seeds 0, 1, ...
    molecules
        Other entries from whose structures to start as well; this entry must be trained on their molecules. Their runs
        are added to the runs on the card, which are kept if they have this length, temperature and threshold.
    workers
        Number of runs at a time; with several, each uses one thread.
    folder
        Folder that keeps the runs, from which an interrupted check resumes. The card is written there if the entry's
        folder is not writable. Default: ``runs/NAME-check``.

    Returns
    -------
    Checked
        The new card, a line for each run, and the file of the card.

    Raises
    ------
    RegistryError
        There is no such entry, or it was changed in the meantime.
    StructureError
        The entry was not trained on forces, or a structure has no bonds.
    """
    card = _entry(name)
    check_forces(card)
    folder = folder or Path("runs") / f"{card.name}-check"
    threshold = None if card.calibration is None else card.calibration.threshold()
    before = card.dynamics
    if before is not None and (
        before.before_prior
        or (before.temperature, before.picoseconds, before.threshold) != (temperature, picoseconds, threshold)
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
    """Time the members of an entry again and write the times into its card, which keeps its runs.

    Parameters
    ----------
    name
        Name or folder of an entry.
    folder
        Folder for the card if that of the entry is not writable. Default: ``runs/NAME-check``.

    Returns
    -------
    Checked
        The new card and its file.

    Raises
    ------
    RegistryError
        There is no such entry, or its card has no run.
    """
    card = _entry(name)
    if card.dynamics is None:
        raise RegistryError(f"{card.name}: its card has no run of dynamics to add times to; check it first")
    times = member_times(card)
    timed = replace(card.dynamics, milliseconds=times.members, yardstick=times.yardstick, processor=processor())
    return _write(card, timed, folder or Path("runs") / f"{card.name}-check", [])


def _entry(name: str | os.PathLike[str]) -> Card:
    card = find_card(name)
    if card is None and Path(name).is_dir():
        raise RegistryError(f"{name}: has no {CARD_FILE}; expected an entry, such as schnet-ase crossval makes")
    return card or get_card(os.fspath(name))


def _line(job: Job, run: Run, seeds: int) -> str:
    which = f"{job.name}, seed {job.seed}" if seeds > 1 else job.name
    if not run.collapsed:
        return f"{which}: intact for {run.picoseconds:g} ps at {run.temperature:.0f} K"
    if job.bonds.off(run.last) <= BROKEN:  # atoms collided, or flew to infinity, between two looks at the bonds
        return f"{which}: lost after {run.picoseconds:.3f} ps"
    return f"{which}: the bond {job.bonds.worst(run.last)} broke after {run.picoseconds:.3f} ps"


def _flagged(run: Run, threshold: float | None) -> float | None:
    """Return the time in ps of the first flag; None if there is none."""
    flags = [] if threshold is None else run.flags(threshold)
    return flags[0] * TIMESTEP_FS / 1000.0 if flags else None


def _write(card: Card, dynamics: Dynamics, folder: Path, runs: list[str]) -> Checked:
    newest = read_card(card.path)  # the entry may have been calibrated meanwhile
    if newest.members != card.members:
        raise RegistryError(f"{card.path}: the entry was changed while it was checked; check it again")
    new = replace(newest, dynamics=dynamics, experimental=dynamics.broken() or newest.experimental)
    try:
        write_card(new, card.path)
    except OSError as error:
        write_card(new, folder)
        return Checked(new, tuple(runs), folder / CARD_FILE, error)
    return Checked(new, tuple(runs), card.path / CARD_FILE, None)
