"""The frames of organic molecules: labels, splits, samples, and a kill that costs nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from tests.support.paths import ROOT

pytest.importorskip("rdkit")
pytest.importorskip("tblite")

from rdkit import Chem

from benchmarks.organic import sampling
from benchmarks.organic.blocks import blocks
from benchmarks.organic.by_hand import NUCLEOBASES, RESIDUES, SMALL, SUGARS, peptides
from benchmarks.organic.check import finite_difference_error
from benchmarks.organic.clusters import clusters
from benchmarks.organic.deform import apart, pulled, turned
from benchmarks.organic.geometry import at_rest, embed, langevin, start, with_hydrogens
from benchmarks.organic.molecules import closed, fit, joined, pieces, standard, substituted
from benchmarks.organic.plan import ROUND, STREAMS, Drawn
from benchmarks.organic.pool import Entry
from benchmarks.organic.report import collect, report
from benchmarks.organic.shards import make
from benchmarks.organic.splits import FOLDS, HELD_OUT, constitution, group_of, split_of
from benchmarks.organic.xtb import Xtb
from schnet_ase.data import read_dataset

ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    "OMP_NUM_THREADS": "1",
}
SULFONAMIDE = "CNS(=O)(=O)CCCl"


def molecule(smiles, seed=0, relaxed=True):
    return start(embed(with_hydrogens(smiles), np.random.default_rng(seed)), relaxed)


def lengths(at, positions):
    return np.linalg.norm(positions[at.bonds[:, 0]] - positions[at.bonds[:, 1]], axis=1)


def mol(smiles):
    return Chem.MolFromSmiles(smiles)


def test_labels_are_the_energys_slope():
    at = molecule(SULFONAMIDE)
    rng = np.random.default_rng(0)
    moved = at.positions + rng.normal(0.0, 0.05, at.positions.shape)
    xtb = Xtb(at.numbers)
    assert np.abs(xtb.label(moved).forces).max() > 2.0
    assert finite_difference_error(xtb, moved, rng, 20) < 2e-4


def test_labels_do_not_depend_on_what_came_before():
    at = molecule("CC(=O)O")
    used = Xtb(at.numbers)
    used.forces(at.positions * 1.05)
    used.label(at.positions * 1.1)
    again, fresh = used.label(at.positions), Xtb(at.numbers).label(at.positions)
    assert again.energy == fresh.energy
    np.testing.assert_array_equal(again.forces, fresh.forces)
    np.testing.assert_allclose(used.forces(at.positions).forces, fresh.forces, rtol=0, atol=2e-3)


def test_force_field_at_one_geometry_after_the_other():
    at = molecule("CC(=O)NC.O")
    rng = np.random.default_rng(1)
    for _ in range(3):
        positions = at.positions + rng.normal(0.0, 0.1, at.positions.shape)
        fresh = embed(with_hydrogens("CC(=O)NC.O"), rng)
        fresh.GetConformer().SetPositions(positions.copy())
        np.testing.assert_allclose(at.field(positions), start(fresh, relaxed=False).field(positions), atol=1e-9)
    assert np.abs(at.field(at.positions)).max() < 1e-3


def test_thermostat():
    at = molecule("CCO")
    rng = np.random.default_rng(2)
    state, kinetic = at_rest(at.positions), []
    for _ in range(200):
        state = langevin(state, at.field, 600.0, 20, rng)
        kinetic.append(12.0 * (state.velocities**2).mean() / 8.617e-5)
    assert np.mean(kinetic[10:]) == pytest.approx(600.0, rel=0.1)


def test_splits():
    counts = Counter(split_of(f"group {k}") for k in range(5000))
    splits = {*HELD_OUT, *(f"fold-{k}" for k in range(FOLDS))}
    assert set(counts) == splits
    for split in splits:
        share = 0.06 if split in ("calibration", "test") else 0.88 / 5
        assert counts[split] == pytest.approx(5000 * share, abs=4 * np.sqrt(5000 * share))
    code = "from benchmarks.organic.splits import split_of; print(*(split_of(f'group {k}') for k in range(50)))"
    other = subprocess.run(
        [sys.executable, "-c", code],
        env=ENVIRONMENT | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert other == [split_of(f"group {k}") for k in range(50)]


def test_groups():
    assert constitution(mol("C[C@H](N)C(=O)O")) == constitution(mol("OC(=O)[C@H](C)N"))
    assert constitution(mol("C/C=C/C")) == constitution(mol("C/C=C\\C")) != constitution(mol("CC(C)=C"))
    ibuprofen, other = mol("CC(C)Cc1ccc(cc1)C(C)C(=O)O"), mol("CCCCOc1ccc(cc1)C(=O)NCC")
    assert group_of(ibuprofen, True) == group_of(other, True) == "c1ccccc1"
    assert group_of(ibuprofen, False) == constitution(ibuprofen)
    assert group_of(mol("Cc1ccccc1"), True) == group_of(mol("Cc1ccccc1"), False) == "Cc1ccccc1"
    assert group_of(mol("CCCCCCCCCCCC"), True) == "CCCCCCCCCCCC"


def test_clusters_mix_no_splits():
    names = [f"C{'C' * k}O" for k in range(12)] + ["C" * k for k in range(1, 12)]
    source = [(smiles, smiles, False) for smiles in names]
    assert len({split_of(s) for s in names}) > 3
    for pairs in (True, False):
        made = list(clusters([source, [("water", "O", False)]], 200, pairs, np.random.default_rng(0)))
        assert made == list(clusters([source, [("water", "O", False)]], 200, pairs, np.random.default_rng(0)))
        for _, smiles, _ in made:
            parts = smiles.split(".")
            assert len({split_of(constitution(mol(part))) for part in parts if part != "O" or parts[0] == "O"}) == 1
            assert fit(with_hydrogens(smiles))
            assert len(parts) == 2 or not pairs


def test_families_by_hand():
    for smiles in [*SMALL, *SUGARS.values(), *NUCLEOBASES.values(), *peptides(1).values()]:
        assert fit(with_hydrogens(smiles)), smiles
    sequence = "".join(RESIDUES)
    for code in sequence:
        ours, theirs = mol(peptides(2)[f"peptide-{code}A"]), Chem.MolFromSequence(f"{code}A")
        assert Chem.MolToSmiles(ours) == Chem.MolToSmiles(theirs), code


def test_what_belongs_here():
    assert standard("[Na+].CC(=O)[O-]") == "CC(=O)O"
    assert standard("Cl.C[NH3+]") == "CN"
    for other in ("BrCC", "C[N+](C)(C)C", "C[CH2]", "C" * 30, "not a SMILES"):
        assert standard(other) is None, other
    assert not fit(with_hydrogens("[CH3]"))


def test_new_molecules():
    found = pieces("CC(=O)Nc1ccc(O)cc1")
    assert len(found) > 1
    assert all("*" in piece for piece in found)
    assert closed("[16*]c1ccccc1") == "c1ccccc1"
    rng = np.random.default_rng(0)
    made = [smiles for smiles, _ in zip(joined(found, rng), range(30), strict=False) if smiles]
    assert made
    assert all(fit(with_hydrogens(smiles)) for smiles in made)
    elements = Counter(s for _ in range(100) for s in (substituted("O=CCCO", rng) or "") if s in "FS")
    assert set(elements) == set("FS")


def test_deformations():
    at = molecule("CCCO")
    rng = np.random.default_rng(3)
    for _ in range(10):
        longer = lengths(at, pulled(at, at.positions, rng)) / lengths(at, at.positions)
        assert np.sum(longer > 1.05) == 1
        assert np.sum(np.abs(longer - 1) < 1e-9) == len(longer) - 1
        moved = turned(at, at.positions, rng)
        np.testing.assert_allclose(lengths(at, moved), lengths(at, at.positions), atol=1e-9)
        assert np.abs(moved - at.positions).max() > 0.1
    ring = molecule("c1ccccc1")
    assert turned(ring, ring.positions, rng) is None
    assert apart(ring, ring.positions, rng) is None
    both = molecule("CO.O")
    first = both.parts == 0
    moved = apart(both, both.positions, rng)
    np.testing.assert_array_equal(moved[~first], both.positions[~first])
    shift = moved[first] - both.positions[first]
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-12)


@pytest.mark.parametrize("sampler", ["field", "dynamics", "deformed", "relaxation"])
def test_samples_of_a_molecule(sampler):
    mol = with_hydrogens("CO")
    frames = list(getattr(sampling, sampler)(mol, np.random.default_rng(4), Xtb(molecule("CO").numbers)))
    assert len(frames) >= 3
    positions = np.array([frame.positions for frame in frames])
    assert np.isfinite(positions).all()
    assert len(np.unique(positions.round(6), axis=0)) == len(frames)


@pytest.mark.parametrize("sampler", ["cluster", "approach", "collision"])
def test_samples_of_a_pair(sampler):
    mol = with_hydrogens("O.CO")
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    frames = list(getattr(sampling, sampler)(mol, np.random.default_rng(5), Xtb(numbers)))
    assert len(frames) >= 4
    xtb = Xtb(numbers)
    for frame in frames:
        np.testing.assert_array_equal(frame.numbers, numbers)
        assert np.isfinite(xtb.label(frame.positions).forces).all()


def test_relaxation_ends_at_a_minimum():
    xtb = Xtb(molecule("CO").numbers)
    frames = list(sampling.relaxation(with_hydrogens("CO"), np.random.default_rng(6), xtb))
    assert np.abs(xtb.label(frames[-1].positions).forces).max() < 0.03
    assert np.abs(xtb.label(frames[0].positions).forces).max() > 0.1


def test_parts_of_a_round_do_not_overlap():
    taken = {}
    for stream in STREAMS:
        for part in stream.parts:
            for k in range(part.first, part.first + part.molecules):
                assert k < ROUND[part.family]
                assert taken.setdefault((part.family, k), stream.name) == stream.name
    assert sum(part.molecules for stream in STREAMS for part in stream.parts) == len(taken)


SCRIPT = """
import logging, sys
from pathlib import Path
from benchmarks.organic import plan, run
from benchmarks.organic.sampling import field

if __name__ == "__main__":
    parts = (plan.Part("biomolecules", 0, 2, field), plan.Part("amino-acids", 0, 1, field))
    plan.STREAMS = (plan.Stream("one", parts[:1]), plan.Stream("other", parts[1:]))
    run.make_all(Path(sys.argv[1]), plan.tasks(3), workers=int(sys.argv[2]))
"""


def test_killed_and_resumed(tmp_path, capsys):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)

    def command(folder, workers):
        return [sys.executable, str(script), str(tmp_path / folder), str(workers)]

    def content(folder):
        return {file.name: file.read_bytes() for file in (tmp_path / folder / "shards").glob("[!.]*")}

    with subprocess.Popen(command("killed", 1), env=ENVIRONMENT) as process:
        deadline = time.monotonic() + 300
        while not any(name.endswith("xyz") for name in content("killed")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    first = next((tmp_path / "killed" / "shards").glob("*.extxyz"))
    mark = first.stat().st_mtime_ns
    subprocess.run(command("killed", 2), env=ENVIRONMENT, check=True)
    subprocess.run(command("whole", 1), env=ENVIRONMENT, check=True)
    assert first.stat().st_mtime_ns == mark, "made again"
    assert content("killed") == content("whole")
    assert sum(name.endswith("xyz") for name in content("whole")) == 6

    output = tmp_path / "whole"
    frames = [atoms for file in sorted((output / "shards").glob("*.extxyz")) for atoms in ase.io.read(file, ":")]
    assert [a.info["config_type"] for a in frames] == ["field"] * 27
    assert all(a.info["split"] == split_of(a.info["group"]) for a in frames)
    assert all(300.0 <= a.info["temperature"] <= 1500.0 for a in frames)
    assert {constitution(mol(a.info["smiles"])) for a in frames} == {a.info["group"] for a in frames}
    block = next(blocks(sorted((output / "shards").glob("*.extxyz"))[0]))
    np.testing.assert_array_equal(block.values, np.hstack([frames[0].positions, frames[0].get_forces()]))
    report(output)
    assert "27 frames of 9 molecules and 0 clusters" in capsys.readouterr().out
    collect(output)
    found = read_dataset(output / "organic.extxyz").frames
    assert {frame.config_type for frame in found} == {"field"}
    assert Counter(f.split for f in found) == Counter(a.info["split"] for a in frames)


def test_smiles_are_read_as_they_were_written(tmp_path):
    class Task:
        """Of hydrogen fluoride, which ASE reads as False, and of cis isomers with and without brackets."""

        name = "some-00000"

        def drawn(self, output):
            for smiles in written:
                yield Drawn(Entry("some", smiles), sampling.field, False, np.random.default_rng(0))

    written = ["F", "C/C=C\\C", "C/C=C\\[C@@H](O)F"]
    (tmp_path / "shards").mkdir()
    make(Task(), tmp_path)
    file = tmp_path / "shards" / "some-00000.extxyz"
    assert list(dict.fromkeys(block.info["smiles"] for block in blocks(file))) == written
    assert list(dict.fromkeys(atoms.info["smiles"] for atoms in ase.io.read(file, ":"))) == [False, *written[1:]]
    report(tmp_path)


def test_of_calibration_molecules_only_ordinary_frames_are_collected(tmp_path):
    frames = []
    for split in ("calibration", "test", "fold-0"):
        for kind in ("dynamics", "collision", "optimizer", "pulled"):
            atoms = Atoms("OH2", [(0.0, 0.0, 0.0), (0.96, 0.0, 0.0), (-0.24, 0.93, 0.0)])
            atoms.info.update(config_type=kind, split=split)
            atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((3, 3)))
            frames.append(atoms)
    (tmp_path / "shards").mkdir()
    ase.io.write(tmp_path / "shards" / "small-00000.extxyz", frames)
    collect(tmp_path)
    found = [
        (atoms.info["split"], atoms.info["config_type"]) for atoms in ase.io.read(tmp_path / "organic.extxyz", ":")
    ]
    assert len(found) == 10
    assert {kind for split, kind in found if split == "calibration"} == {"dynamics", "optimizer"}
