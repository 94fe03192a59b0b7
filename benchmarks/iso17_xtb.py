"""A data set like ISO17: molecular dynamics of isomers of C7O2H10 with GFN2-xTB, in the files and keys of ISO17.

\b
    python benchmarks/iso17_xtb.py FOLDER

Isomers are drawn from QM9 (the package `qm9pack`), relaxed, and run at 500 K with a Langevin thermostat. One that
reacts, or does not relax, is replaced by another. Each isomer is a complete file in FOLDER/parts, so the same command
resumes after a kill and, with more --isomers, makes only those that are missing. From the parts it writes:

\b
    reference.db     the first four fifths of the frames of four fifths of the isomers
    reference_eq.db  the relaxed structures of those isomers
    test_within.db   the last fifth of their frames, so that no tested frame lies between two of training
    test_other.db    the frames of the other isomers
    test_eq.db       their relaxed structures

Energies are GFN2-xTB's in eV (`total_energy`), forces in eV/Å (`atomic_forces` in `data`), as each database's metadata
says. The original has PBE+TS labels of frames 1 fs apart (Schütt et al., NeurIPS 30, 2017).
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import ase.db
import ase.io
import click
import numpy as np
from _report import exit_on_error
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta
from ase.neighborlist import natural_cutoffs, neighbor_list
from ase.optimize import BFGS
from filelock import FileLock, Timeout

from schnet_ase.data import read_dataset
from schnet_ase.errors import SchNetError
from schnet_ase.learn.reference import label
from schnet_ase.output.files import atomic_write
from schnet_ase.output.progress import Progress

FORMULA = {6: 7, 8: 2, 1: 10}
TEMPERATURE = 500.0  # K
TIMESTEP = 0.5  # fs
FRICTION = 10.0  # 1/ps
BROKEN = 0.5  # Å that a bond is longer than at the start
NAMES = ("reference", "reference_eq", "test_within", "test_other", "test_eq")


@dataclass(frozen=True)
class Sampling:
    """Parameters that an isomer's file depends on."""

    frames: int
    spacing: float
    """Time between frames, fs."""
    equilibration: float
    """Time before the first frame, fs."""
    seed: int
    tblite: str
    """Version of tblite."""


class _Orphaned(Exception):
    """Raised if the command that this worker belongs to has ended."""


def gfn2(atoms: Atoms | None = None) -> Calculator:
    """Return GFN2-xTB (Bannwarth et al., JCTC 15, 1652, 2019), converged ten times more tightly than by default."""
    from tblite.ase import TBLite

    return TBLite(method="GFN2-xTB", accuracy=0.1, verbosity=0)


def isomers() -> list[tuple[int, Atoms]]:
    """Return all molecules of C7O2H10 in QM9 with their positions in the package."""
    counts = sorted(z for z, n in FORMULA.items() for _ in range(n))
    frames = enumerate(read_dataset("qm9pack:").frames)
    return [(index, frame.atoms()) for index, frame in frames if sorted(frame.geometry.numbers) == counts]


def sample(start: Atoms, sampling: Sampling, seed: Sequence[int], parent: int | None = None) -> list[Atoms]:
    """Return the relaxed structure and the frames of a run from it, labelled; a single structure if it reacted.

    Parameters
    ----------
    start
        Geometry from QM9.
    sampling
        Number of frames and their times.
    seed
        Seed of velocities and thermostat.
    parent
        Process whose end also ends this run; None: the run goes to its end.
    """
    rng = np.random.default_rng(seed)
    atoms = Atoms(start.numbers, start.positions)
    i, j = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=1.2))
    bonds = np.linalg.norm(atoms.positions[i] - atoms.positions[j], axis=1)
    atoms.calc = gfn2()
    with BFGS(atoms, logfile=None) as optimizer:
        relaxed = optimizer.run(fmax=0.005, steps=500)
    kept = [_labelled(atoms)]
    if not relaxed:
        return kept
    thermalize_momenta(atoms, temperature_K=TEMPERATURE, rng=rng)
    Stationary(atoms)
    ZeroRotation(atoms)
    dynamics = Langevin(
        atoms,
        TIMESTEP * units.fs,
        temperature_K=TEMPERATURE,
        friction=FRICTION / (1000.0 * units.fs),
        fixcm=False,
        rng=rng,
    )
    for frame in range(sampling.frames + 1):
        # Run in pieces, so that a reaction is noticed and a worker does not outlive its command for long.
        left = round((sampling.spacing if frame else sampling.equilibration) / TIMESTEP)
        while left > 0:
            if parent is not None and os.getppid() != parent:
                raise _Orphaned
            dynamics.run(min(left, 20))
            left -= 20
            if (np.linalg.norm(atoms.positions[i] - atoms.positions[j], axis=1) > bonds + BROKEN).any():
                return kept[:1]
        if frame:
            kept.append(_labelled(atoms))
    return kept


def _labelled(atoms: Atoms) -> Atoms:
    """Return positions and labels, which do not depend on earlier frames."""
    found = label(atoms, gfn2)
    bare = Atoms(atoms.numbers, atoms.positions)
    bare.calc = SinglePointCalculator(bare, energy=found.energy, forces=found.forces)
    return bare


def _make_part(part: Path, start: Atoms, sampling: Sampling, index: int, parent: int) -> None:
    frames = sample(start, sampling, (sampling.seed, index), parent)
    text = io.StringIO()
    ase.io.write(text, frames, format="extxyz")
    atomic_write(part, text.getvalue())


def make_parts(folder: Path, n_isomers: int, sampling: Sampling, workers: int) -> list[Path]:
    """Make the files of isomers that did not react, keeping existing ones; return them in the order of drawing."""
    parts = folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    _same_sampling(parts / "sampling.json", sampling)
    all_isomers = isomers()
    order = np.random.default_rng(sampling.seed).permutation(len(all_isomers))
    drawn = [(parts / f"isomer-{all_isomers[k][0]}.extxyz", *all_isomers[k]) for k in order]
    good: list[Path] = []
    done = 0
    with (
        ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool,
        Progress(n_isomers, "isomers", "isomer") as progress,
    ):
        while len(good) < n_isomers:
            batch = drawn[done : done + n_isomers - len(good)]
            if not batch:
                raise SchNetError(
                    f"QM9 has {len(all_isomers)} isomers, {len(good)} of which do not react; ask for fewer"
                )
            done += len(batch)
            missing = [entry for entry in batch if not entry[0].exists()]
            futures = [pool.submit(_make_part, p, start, sampling, index, os.getpid()) for p, index, start in missing]
            for _ in _finished(futures):
                progress.update()
            found = [part for part, *_ in batch if _has_frames(part)]
            progress.update(len(found) - len(missing))
            good += found
    return good


def _finished(futures: list[Future[None]]) -> Iterator[None]:
    waiting = set(futures)
    try:
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                yield
    finally:
        for future in waiting:
            future.cancel()


def _has_frames(part: Path) -> bool:
    return len(ase.io.read(part, ":2")) > 1


def _same_sampling(file: Path, sampling: Sampling) -> None:
    if not file.exists():
        atomic_write(file, json.dumps(asdict(sampling)))
        return
    earlier = json.loads(file.read_text())
    changed = [f"{key} {earlier.get(key)}" for key, value in asdict(sampling).items() if earlier.get(key) != value]
    if changed:
        raise SchNetError(f"{file.parent}: was made with {', '.join(changed)}; give these, or another folder")


def write_databases(folder: Path, parts: Sequence[Path], sampling: Sampling) -> None:
    """Write the five files of ISO17 from those of the isomers, each atomically."""
    n_reference = _four_fifths(len(parts))
    content: dict[str, list[tuple[int, Atoms]]] = {name: [] for name in NAMES}
    for k, part in enumerate(parts):
        index = int(part.stem.removeprefix("isomer-"))
        relaxed, *frames = [(index, atoms) for atoms in ase.io.read(part, ":")]
        if k < n_reference:
            split = _four_fifths(len(frames))
            content["reference_eq"].append(relaxed)
            content["reference"] += frames[:split]
            content["test_within"] += frames[split:]
        else:
            content["test_eq"].append(relaxed)
            content["test_other"] += frames
    for name, frames in content.items():
        _write_database(folder / f"{name}.db", frames, sampling)
        print(f"{folder / name}.db: {len(frames)} frames of {len({index for index, _ in frames})} isomers")


def _four_fifths(n: int) -> int:
    """Return four fifths of `n`, rounded so that both parts have at least one."""
    return min(max(1, round(0.8 * n)), n - 1)


def _write_database(file: Path, frames: Iterable[tuple[int, Atoms]], sampling: Sampling) -> None:
    building = file.with_name(f".{file.name}.part")
    building.unlink(missing_ok=True)  # left by a command that was killed
    with ase.db.connect(building, type="db") as database:
        for index, atoms in frames:
            database.write(
                Atoms(atoms.numbers, atoms.positions),
                total_energy=atoms.get_potential_energy(),
                isomer=index,
                data={"atomic_forces": atoms.get_forces()},
            )
        database.metadata = {
            "level_of_theory": f"GFN2-xTB, tblite {sampling.tblite}",
            "units": "total_energy eV, atomic_forces eV/Å, positions Å",
            "isomer": "index of the molecule in qm9pack, from 0",
            "dynamics": f"Langevin, {TEMPERATURE:g} K, {TIMESTEP:g} fs, {FRICTION:g}/ps",
            "sampling": asdict(sampling),
        }
    os.replace(building, file)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--isomers", "n_isomers", default=25, show_default=True, type=click.IntRange(2))
@click.option("--frames", default=250, show_default=True, type=click.IntRange(2), help="Frames per isomer.")
@click.option("--spacing", default=25.0, show_default=True, type=click.FloatRange(TIMESTEP), help="fs between frames.")
@click.option(
    "--equilibration", default=1000.0, show_default=True, type=click.FloatRange(0), help="fs before the first."
)
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1), help="Isomers at once.")
@click.option("--seed", default=0, show_default=True)
@exit_on_error
def main(
    folder: Path, n_isomers: int, frames: int, spacing: float, equilibration: float, workers: int, seed: int
) -> None:
    """Run the command; the module's docstring is its help."""
    os.environ["OMP_NUM_THREADS"] = "1"  # of the workers: isomers run side by side
    sampling = Sampling(frames, spacing, equilibration, seed, version("tblite"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock").acquire(timeout=0):
            write_databases(folder, make_parts(folder, n_isomers, sampling, workers), sampling)
    except Timeout as error:
        raise SchNetError(f"{folder}: another process works here; wait for it or choose another folder") from error


if __name__ == "__main__":
    main()
