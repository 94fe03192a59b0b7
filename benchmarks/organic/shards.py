"""One shard: a stream's frames of a round, labelled and written whole, with counts of what was dropped."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from rdkit import Chem, RDLogger

from schnet_ase.output.files import atomic_write

from .geometry import NoGeometry, with_hydrogens
from .molecules import fit
from .plan import Drawn, Task
from .sampling import Sampled
from .splits import HELD_OUT, group_of, split_of
from .xtb import Label, Unconverged, Xtb

STRONGEST = 30.0
"""eV/Å; frames with stronger forces are dropped."""
COUNTS = ("kept", "unconverged", "too strong", "no geometry", "unfit")
"""What becomes of frames (the first three) and of molecules."""


class Made(NamedTuple):
    """What a shard cost and brought."""

    name: str
    counts: dict[str, int]
    """By `COUNTS`, and the labels calculated."""


def file_of(output: Path, task: Task) -> Path:
    """Where a shard is, once it is whole."""
    return output / "shards" / f"{task.name}.extxyz"


def make(task: Task, output: Path) -> Made:
    """Sample, label and write a shard.

    Parameters
    ----------
    task
        Which one.
    output
        Folder of the whole data set.
    """
    RDLogger.DisableLog("rdApp.*")
    counts: Counter[str] = Counter()
    frames = []
    for drawn in task.drawn(output):
        frames += list(_frames(drawn, counts))
    text = io.StringIO()
    if frames:
        ase.io.write(text, frames, format="extxyz")
    target = file_of(output, task)
    numbers = {key: counts[key] for key in (*COUNTS, "labels")}
    atomic_write(target.with_suffix(".json"), json.dumps(numbers) + "\n")
    atomic_write(target, text.getvalue())  # last: it says that the shard is whole
    return Made(task.name, numbers)


def _frames(drawn: Drawn, counts: Counter[str]) -> Iterator[Atoms]:
    entry = drawn.entry
    try:
        mol = with_hydrogens(entry.smiles)
    except NoGeometry:
        counts["no geometry"] += 1
        return
    if not fit(mol):
        counts["unfit"] += 1
        return
    first = Chem.MolFromSmiles(entry.smiles.partition(".")[0])  # decides for a cluster
    group = group_of(first, entry.by_scaffold)
    smiles = entry.smiles.replace("\\", r"\\")  # ASE reads one backslash of extxyz as none
    about = {"molecule": entry.name, "smiles": smiles, "group": group, "split": split_of(group)}
    if drawn.for_training and about["split"] in HELD_OUT:
        return
    xtb = Xtb(np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()]))
    try:
        for sampled in drawn.sampler(mol, drawn.rng, xtb):
            atoms = _labelled(sampled, xtb, counts)
            if atoms is not None:
                atoms.info.update(about)
                yield atoms
    except NoGeometry:
        counts["no geometry"] += 1
    except Unconverged:  # while atoms moved
        counts["unconverged"] += 1
    finally:
        counts["labels"] += xtb.labels


def _labelled(sampled: Sampled, xtb: Xtb, counts: Counter[str]) -> Atoms | None:
    try:
        label: Label = xtb.label(sampled.positions)
    except Unconverged:
        counts["unconverged"] += 1
        return None
    if np.linalg.norm(label.forces, axis=1).max() > STRONGEST:
        counts["too strong"] += 1
        return None
    counts["kept"] += 1
    atoms = Atoms(sampled.numbers, sampled.positions)
    atoms.info.update(config_type=sampled.config_type, temperature=round(sampled.temperature, 1))
    atoms.calc = SinglePointCalculator(atoms, energy=label.energy, forces=label.forces)
    return atoms
