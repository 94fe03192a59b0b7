"""Frames that an ensemble's members label, for another ensemble to learn from: a file for each member, for its fold.

From frames of DATA that the members were trained or validated on, drawn at random, and velocities of the temperature
given, each runs by Velocity Verlet with the mean forces, steps of 0.5 fs, and every 10 fs is a frame. Its label in the
n-th file is the energy and the forces of the n-th member, which knows the labels that its fold trains on, no others:
with the same folds, and ``extra = "teacher/*_fold-{fold}.npz"``, no fold learns from labels that it is validated on.

    python benchmarks/teacher_frames.py rmd17-benzene data/rmd17_benzene_train_01.npz --output teacher
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from _report import exit_on_error
from ase import Atoms, units
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet

from schnet_ase import SchNetEnsembleCalculator
from schnet_ase.data import Dataset, read_dataset
from schnet_ase.errors import DataError
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.output.files import atomic_write
from schnet_ase.output.progress import Progress
from schnet_ase.registry.checkpoint import read_provenance
from schnet_ase.registry.loading import locate_members

TIMESTEP_FS, STEPS = 0.5, 20
"""Of the dynamics, and steps from frame to frame."""


class Labelled(NamedTuple):
    """F frames of N atoms, labelled by M members."""

    positions: Floats
    """(F, N, 3) Å."""
    energies: Floats
    """(F, M) eV."""
    forces: Floats
    """(F, M, N, 3) eV/Å."""


def folded_frames(entry: str, dataset: Dataset) -> list[int]:
    """The frames that an entry's members trained and validated on, not those of its calibration.

    Raises
    ------
    DataError
        The entry was trained on other data.
    """
    provenance = read_provenance(locate_members(entry)[0].path)
    if provenance["data_sha256"] != dataset.sha256:
        raise DataError(f"{dataset.source}: not what {entry} was trained on; give its {provenance['data_file']}")
    return sorted([*provenance["training_frames"], *provenance["validation_frames"]])


def one_molecule(dataset: Dataset) -> Integers:
    """The atomic numbers of all frames, which an ``.npz`` holds once, without a cell.

    Raises
    ------
    DataError
        Frames are of several molecules, or periodic.
    """
    numbers = dataset.frames[0].geometry.numbers
    for index, frame in enumerate(dataset.frames):
        if frame.geometry.pbc.any() or not np.array_equal(frame.geometry.numbers, numbers):
            raise DataError(
                f"{dataset.source}: frame {index} is periodic or of another molecule than frame 0; "
                "expected one molecule, its atoms in one order"
            )
    return numbers


def sample(
    starts: list[Atoms], calculator: SchNetEnsembleCalculator, frames: int, kelvin: float, seed: int
) -> Labelled:
    """`frames` of dynamics, as many from each start."""
    rng = np.random.default_rng(seed)
    found = []
    with Progress(frames, "teacher", "frame") as progress:
        for k, atoms in enumerate(starts):
            atoms.calc = calculator
            thermalize_momenta(atoms, temperature_K=kelvin, rng=rng)
            dynamics = VelocityVerlet(atoms, TIMESTEP_FS * units.fs)
            for _ in range(k, frames, len(starts)):
                dynamics.run(STEPS)
                results = calculator.results
                found.append((atoms.positions.copy(), results["energy_ensemble"], results["forces_ensemble"]))
                progress.update()
    return Labelled(*(np.array(column) for column in zip(*found, strict=True)))


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entry")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--frames", default=3000, show_default=True, type=click.IntRange(1))
@click.option("--starts", default=100, show_default=True, type=click.IntRange(1), help="Frames of DATA to start from.")
@click.option("--temperature", default=500.0, show_default=True, type=click.FloatRange(0.0, min_open=True), help="K.")
@click.option("--seed", default=0, show_default=True)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder.")
@exit_on_error
def main(entry: str, data: Path, frames: int, starts: int, temperature: float, seed: int, output: Path) -> None:
    dataset = read_dataset(data)
    numbers = one_molecule(dataset)
    chosen = np.random.default_rng(seed).permutation(folded_frames(entry, dataset))[: min(starts, frames)]
    atoms = [dataset.frames[i].atoms() for i in chosen]
    labelled = sample(atoms, SchNetEnsembleCalculator(entry), frames, temperature, seed)
    for m in range(labelled.energies.shape[1]):
        archive = io.BytesIO()
        labels = {"E": labelled.energies[:, m], "F": labelled.forces[:, m], "r_unit": "Ang", "e_unit": "eV"}
        np.savez(archive, z=numbers, R=labelled.positions, **labels)
        atomic_write(output / f"{Path(entry).name}_fold-{m + 1}.npz", archive.getvalue())
    print(f"wrote {len(labelled.positions)} frames for each of {labelled.energies.shape[1]} folds to {output}")


if __name__ == "__main__":
    main()
