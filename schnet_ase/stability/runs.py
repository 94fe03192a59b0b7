"""Runs of dynamics: their parameters, their results, and the files that keep them."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from ase import units

from schnet_ase.errors import StructureError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.output.files import atomic_write
from schnet_ase.registry.card import Card, Structure
from schnet_ase.stability.bonds import Bonds, find_bonds
from schnet_ase.stability.thermostats import TIMESTEP_FS, State

BLOCK = 100
"""Number of steps between kept frames, and least number of steps between two flags."""
LIQUID_SPACING = 20
"""Number of steps between looks at the bonds of a periodic system, which has many pairs of protons and acceptors."""


class Job(NamedTuple):
    """Parameters of a run, which determine its result."""

    entry: Path
    """Folder of the entry."""
    members: tuple[str, ...]
    """SHA-256 of the members' files."""
    name: str
    """Name of the entry whose relaxed structure the run starts from."""
    structure: Structure
    bonds: Bonds
    """Bonds that stability is judged by."""
    temperature: float
    """Temperature in K at the start and, unless `heated_to` is given, of the thermostat."""
    heated_to: float | None
    """Temperature of the thermostat in K, if it differs from that at the start."""
    picoseconds: float
    """Length of the run if no bond breaks."""
    seed: int

    @property
    def steps(self) -> int:
        """Number of steps if no bond breaks."""
        return round(1000.0 * self.picoseconds / TIMESTEP_FS)

    @property
    def spacing(self) -> int:
        """Number of steps between looks at the bonds."""
        return LIQUID_SPACING if self.bonds.pbc.any() else 1

    @property
    def file(self) -> str:
        """Name of the file that keeps the run."""
        heated = "" if self.heated_to is None else f"-to-{self.heated_to:g}K"
        return f"{self.name}-{self.temperature:g}K{heated}-seed-{self.seed}.npz"

    def identity(self) -> str:
        """Return a hash of everything that the trajectory depends on, except for its length."""
        structure = self.structure
        said = (self.members, structure.numbers, structure.positions, structure.cell, structure.pbc)
        digest = hashlib.sha256(repr((*said, self.temperature, self.heated_to, self.seed)).encode())
        for array in (self.bonds.first, self.bonds.second, self.bonds.mean):
            digest.update(array.tobytes())
        return digest.hexdigest()


class Run(NamedTuple):
    """Result of a job, up to the collapse if there was one; step 1 is the first after the start."""

    steps: int
    collapsed: bool
    """Whether a bond broke or the structure became invalid."""
    degrees: int
    """Number of degrees of freedom that hold kinetic energy."""
    off: Floats
    """(looks,) Å, deviation of the bond farthest from its mean length."""
    deviation: Floats
    """(steps + 1,) eV/Å, largest forces_deviation at the start and after each step; empty for a single network."""
    kinetic: Floats
    """(steps + 1,) eV, kinetic energy at the start and after each step."""
    frames: Floats
    """(K, N, 3) Å, positions after every 100 steps."""
    last: Floats
    """(N, 3) Å, positions at the last look at the bonds."""
    seconds: float
    """Processor time."""

    @property
    def picoseconds(self) -> float:
        """Time up to the end or the collapse."""
        return self.steps * TIMESTEP_FS / 1000.0

    @property
    def temperature(self) -> float:
        """Mean temperature of the run, K."""
        return float(self.kinetic[1:].mean()) * 2.0 / (self.degrees * units.kB)

    def flags(self, threshold: float) -> list[int]:
        """Return the steps that a monitor with this threshold in eV/Å and a cool-down of 100 steps flags."""
        flags: list[int] = []
        for step in np.flatnonzero(~(self.deviation <= threshold)).tolist():
            if not flags or step > flags[-1] + BLOCK:
                flags.append(step)
        return flags

    def first(self, steps: int, spacing: int) -> Run:
        """Return the run as it was after its first `steps`."""
        if steps >= self.steps:
            return self
        return self._replace(
            steps=steps,
            collapsed=False,
            off=self.off[: steps // spacing],
            deviation=self.deviation[: steps + 1],
            kinetic=self.kinetic[: steps + 1],
            frames=self.frames[: steps // BLOCK],
        )


class Kept(NamedTuple):
    """A run so far, and the state that it resumes from."""

    run: Run
    state: State

    def finished(self, job: Job) -> Run | None:
        """Return the result if the run is complete, else None."""
        over = self.run.collapsed or self.run.steps >= job.steps
        return self.run.first(job.steps, job.spacing) if over else None


def make_job(
    card: Card,
    start: Card,
    temperature: float,
    picoseconds: float,
    seed: int = 0,
    *,
    heated_to: float | None = None,
    bonds: Bonds | None = None,
) -> Job:
    """Return the job that runs the entry `card` from the structure of the entry `start`.

    Stability is judged by `bonds`; None: the bonds of that structure. See `Job` for the other parameters.

    Raises
    ------
    StructureError
        The structure has no bonds.
    """
    bonds = find_bonds(start.structure.atoms()) if bonds is None else bonds
    if not len(bonds.mean):
        raise StructureError(f"{start.name}: its structure has no bonds, so its stability cannot be judged")
    members = tuple(member.sha256 for member in card.members)
    entry = card.path.resolve()
    return Job(entry, members, start.name, start.structure, bonds, temperature, heated_to, picoseconds, seed)


def read_run(job: Job, folder: Path) -> Run | None:
    """Return the result of a finished job; None if it is not finished or was made with other models or parameters."""
    kept = read_kept(job, folder)
    return None if kept is None else kept.finished(job)


def read_kept(job: Job, folder: Path) -> Kept | None:
    """Read the saved part of a job; None if there is none or it was made with other models or parameters."""
    try:
        with (folder / job.file).open("rb") as file, np.load(file) as arrays:
            if str(arrays["identity"]) != job.identity():
                return None
            numbers = {name: arrays[name].item() for name in ("steps", "collapsed", "degrees", "seconds")}
            run = Run(**numbers, **{name: arrays[name] for name in ("off", "deviation", "kinetic", "frames", "last")})
            positions, momenta, chain = (arrays[name] for name in ("positions", "momenta", "chain"))
            state = State(int(arrays["step"]), positions, momenta, chain, str(arrays["random"]))
    except (FileNotFoundError, BadZipFile, KeyError, ValueError, EOFError):  # there is no file, or it is not a run
        return None
    return Kept(run, state)


def write_kept(kept: Kept, job: Job, folder: Path) -> None:
    """Write the file that `read_kept` reads, atomically."""
    content = io.BytesIO()
    np.savez(content, identity=job.identity(), **kept.run._asdict(), **kept.state._asdict())
    atomic_write(folder / job.file, content.getvalue())
