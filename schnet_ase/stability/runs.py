"""Runs of dynamics: what they depend on, what comes of them, and the files that they are kept in."""

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
"""Steps between the frames that are kept, and after a flag until the next."""
LIQUID_SPACING = 20
"""Steps between looks at the bonds of a periodic system, which has many pairs of protons and takers."""


class Job(NamedTuple):
    """A run, and all that its result depends on."""

    entry: Path
    """Its folder."""
    members: tuple[str, ...]
    """SHA-256 of the entry's files."""
    name: str
    """Of the entry whose relaxed structure is where it starts."""
    structure: Structure
    bonds: Bonds
    """By which it is judged."""
    temperature: float
    """K, at which it starts, and is kept."""
    heated_to: float | None
    """K; None: it is kept."""
    picoseconds: float
    """At most."""
    seed: int

    @property
    def steps(self) -> int:
        """At most."""
        return round(1000.0 * self.picoseconds / TIMESTEP_FS)

    @property
    def spacing(self) -> int:
        """Steps between looks at the bonds."""
        return LIQUID_SPACING if self.bonds.pbc.any() else 1

    @property
    def file(self) -> str:
        """Name of the file that it is kept in."""
        heated = "" if self.heated_to is None else f"-to-{self.heated_to:g}K"
        return f"{self.name}-{self.temperature:g}K{heated}-seed-{self.seed}.npz"

    def identity(self) -> str:
        """Of what the numbers of its steps depend on, however many there are."""
        structure = self.structure
        said = (self.members, structure.numbers, structure.positions, structure.cell, structure.pbc)
        digest = hashlib.sha256(repr((*said, self.temperature, self.heated_to, self.seed)).encode())
        for array in (self.bonds.first, self.bonds.second, self.bonds.mean):
            digest.update(array.tobytes())
        return digest.hexdigest()


class Run(NamedTuple):
    """What came of a job, up to the collapse where there was one; step 1 is the first after the start."""

    steps: int
    collapsed: bool
    degrees: int
    """Of freedom, that hold the kinetic energy."""
    off: Floats
    """(looks,) Å, that of the bond farthest from its mean."""
    deviation: Floats
    """(steps + 1,) eV/Å, the largest forces_deviation from the start on; empty for a single network."""
    kinetic: Floats
    """(steps + 1,) eV."""
    frames: Floats
    """(K, N, 3) Å, after every 100 steps."""
    last: Floats
    """(N, 3) Å, at the last look at the bonds."""
    seconds: float
    """Of the processor."""

    @property
    def picoseconds(self) -> float:
        """How long it was whole."""
        return self.steps * TIMESTEP_FS / 1000.0

    @property
    def temperature(self) -> float:
        """K, mean over the run."""
        return float(self.kinetic[1:].mean()) * 2.0 / (self.degrees * units.kB)

    def flags(self, threshold: float) -> list[int]:
        """Steps at which a monitor of this threshold in eV/Å flags, its cool-down being 100 steps."""
        flags: list[int] = []
        for step in np.flatnonzero(~(self.deviation <= threshold)).tolist():
            if not flags or step > flags[-1] + BLOCK:
                flags.append(step)
        return flags

    def first(self, steps: int, spacing: int) -> Run:
        """What it was after its first `steps`."""
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
    """A run so far, and where it goes on."""

    run: Run
    state: State

    def finished(self, job: Job) -> Run | None:
        """The result, where there is no more to be done."""
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
    """A run of `card` from the structure of the entry `start`, judged by the bonds there but for `bonds`.

    Raises
    ------
    StructureError
        The structure has no bonds.
    """
    bonds = find_bonds(start.structure.atoms()) if bonds is None else bonds
    if not len(bonds.mean):
        raise StructureError(f"{start.name}: its structure has no bonds, by which it would be whole or broken")
    members = tuple(member.sha256 for member in card.members)
    entry = card.path.resolve()
    return Job(entry, members, start.name, start.structure, bonds, temperature, heated_to, picoseconds, seed)


def read_run(job: Job, folder: Path) -> Run | None:
    """The result of a job that is done; None where it is not, or was done with another model or reference."""
    kept = read_kept(job, folder)
    return None if kept is None else kept.finished(job)


def read_kept(job: Job, folder: Path) -> Kept | None:
    """What there is of a job; None where there is nothing, or that of another model or reference."""
    try:
        with (folder / job.file).open("rb") as file, np.load(file) as arrays:
            if str(arrays["identity"]) != job.identity():
                return None
            numbers = {name: arrays[name].item() for name in ("steps", "collapsed", "degrees", "seconds")}
            run = Run(**numbers, **{name: arrays[name] for name in ("off", "deviation", "kinetic", "frames", "last")})
            positions, momenta, chain = (arrays[name] for name in ("positions", "momenta", "chain"))
            state = State(int(arrays["step"]), positions, momenta, chain, str(arrays["random"]))
    except (FileNotFoundError, BadZipFile, KeyError, ValueError, EOFError):  # none, or not one of ours
        return None
    return Kept(run, state)


def write_kept(kept: Kept, job: Job, folder: Path) -> None:
    """Write what `read_kept` reads, atomically."""
    content = io.BytesIO()
    np.savez(content, identity=job.identity(), **kept.run._asdict(), **kept.state._asdict())
    atomic_write(folder / job.file, content.getvalue())
