"""Frames that an ensemble finds in molecules that are new to it."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from ase import Atoms

from tests.support.paths import ROOT

pytest.importorskip("rdkit")
pytest.importorskip("tblite")

from benchmarks.organic import driven
from benchmarks.organic.active import FIRST_ROUND, explored, tasks, threshold
from benchmarks.organic.geometry import with_hydrogens
from benchmarks.organic.plan import ROUND
from benchmarks.organic.xtb import Xtb
from schnet_ase import SchNetEnsembleCalculator

ENTRY = ROOT / "models" / "rmd17-ethanol"


def found(smiles, seeds):
    mol = with_hydrogens(smiles)
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    for seed in range(seeds):
        yield from explored(mol, np.random.default_rng(seed), Xtb(numbers), entry=ENTRY)


def largest(sampled, ensemble):
    return ensemble.get_property("forces_deviation", Atoms(sampled.numbers, sampled.positions)).max()


def test_flags_are_above_the_threshold_and_other_frames_of_a_known_molecule_below():
    ensemble = SchNetEnsembleCalculator(ENTRY)
    lo = threshold(ensemble)
    frames = list(found("CCO", 5))
    assert any(sampled.config_type == "explored" for sampled in frames)
    for sampled in frames:
        if sampled.config_type == "explored":
            assert largest(sampled, ensemble) < lo
    flagged = [sampled for sampled in found("OCC(O)CO", 2) if sampled.config_type == "flagged"]
    assert largest(flagged[-1], ensemble) > lo


def test_rounds_draw_molecules_that_earlier_ones_did_not():
    task = next(islice(tasks(ENTRY, generation=2, rounds=3), 1, None))
    assert (task.round, task.name) == (2 * FIRST_ROUND + 1, "explored-2-02001")
    molecules = {part.family: part.molecules for part in task.stream.parts}
    assert molecules == {family: n for family, n in ROUND.items() if family != "pairs"}


def test_a_member_moves_molecules_and_the_seed_decides_where():
    mol = with_hydrogens("CCO")
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    frames = {
        seed: list(driven.driven(mol, np.random.default_rng(seed), Xtb(numbers), entry=ENTRY)) for seed in range(6)
    }
    assert {sampled.temperature > 0.0 for found in frames.values() for sampled in found} == {False, True}
    for found in frames.values():
        assert len({sampled.positions.tobytes() for sampled in found}) == len(found) >= 2
        assert all(np.linalg.norm(sampled.positions[0] - sampled.positions[1]) < 2.0 for sampled in found)
    again = list(driven.driven(mol, np.random.default_rng(3), Xtb(numbers), entry=ENTRY))
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(again, frames[3], strict=True))


def test_a_round_of_the_driven_frames_has_larger_molecules_in_a_stream_of_their_own():
    names = [(task.name, task.round) for task in driven.tasks(ENTRY, first=0, rounds=2)]
    assert names == [
        ("driven-00200", 200),
        ("driven-drugs-00500", 500),
        ("driven-00201", 201),
        ("driven-drugs-00501", 501),
    ]
    assert [task.round for task in driven.tasks(ENTRY, first=100, rounds=1)] == [300, 600]
