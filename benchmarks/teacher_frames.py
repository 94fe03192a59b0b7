"""Frames labelled by the members of an ensemble as training data for another ensemble, in one file per member and fold.

The frames are those that `schnet-ase distill` makes, from dynamics with the members' mean that starts from the
structure on the card. The n-th file has the energies and forces of the n-th member, which was trained only on the
labels of its fold. With the same folds and ``extra = "teacher/*_fold-{fold}.npz"``, no fold learns from labels that it
is validated on. The same command resumes.

    python benchmarks/teacher_frames.py rmd17-benzene --output teacher
"""

from __future__ import annotations

import io
from pathlib import Path

import click
import numpy as np
from _report import exit_on_error

from schnet_ase.errors import DataError
from schnet_ase.output.files import atomic_write
from schnet_ase.output.progress import Stages
from schnet_ase.training.distill import Sampling
from schnet_ase.training.distill.dynamics import sample
from schnet_ase.training.distill.labelled import load_labelled
from schnet_ase.training.distill.teacher import Teacher


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entry")
@click.option("--frames", default=3000, show_default=True, type=click.IntRange(2))
@click.option("--temperature", default=500.0, show_default=True, type=click.FloatRange(0.0, min_open=True), help="K.")
@click.option("--seed", default=0, show_default=True)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder.")
@exit_on_error
def main(entry: str, frames: int, temperature: float, seed: int, output: Path) -> None:
    teacher = Teacher.of(entry)
    starts, sampling = teacher.starts([], 1), Sampling(frames, (temperature, temperature), seed)
    if starts[0].pbc.any() or len(teacher.card.members) < 2:
        raise DataError(f"{entry}: periodic, or a single model; expected an ensemble for a molecule")
    energies, forces, positions = [], [], []
    with Stages() as stages:
        folder = output / f".{teacher.card.name}"
        files = sample(teacher, sampling, starts, folder, lambda done: stages.update("frames", done, frames))
        labelled = [frame for file in files for frame in load_labelled(file).frames()]
        for done, frame in enumerate(labelled, start=1):
            atoms = frame.atoms()
            atoms.calc = teacher.calculator
            atoms.get_forces()
            positions.append(atoms.positions)
            energies.append(teacher.calculator.results["energy_ensemble"])
            forces.append(teacher.calculator.results["forces_ensemble"])
            stages.update("labels", done, frames)
    for m in range(len(teacher.card.members)):
        archive = io.BytesIO()
        labels = {"E": np.array(energies)[:, m], "F": np.array(forces)[:, m], "r_unit": "Ang", "e_unit": "eV"}
        np.savez(archive, z=starts[0].numbers, R=np.array(positions), **labels)
        atomic_write(output / f"{teacher.card.name}_fold-{m + 1}.npz", archive.getvalue())
    print(f"wrote {frames} frames for each of {len(teacher.card.members)} folds to {output}")


if __name__ == "__main__":
    main()
