"""What the stability study measures: bonds, pulls and distances, against what is known by hand."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _molecule import BINS, FARTHEST, distance_counts, distribution, distribution_error, find_bonds, pulled
from ase.build import molecule

from schnet_ase.training import crossval, load_config
from tests.frames import write_run

ROOT = Path(__file__).parent.parent


def bonds_of(name, frames=1, seed=0):
    atoms = molecule(name)
    rng = np.random.default_rng(seed)
    positions = atoms.positions + 0.02 * rng.normal(size=(frames, len(atoms), 3))
    positions[0] = atoms.positions
    return atoms, positions, find_bonds(atoms.numbers, positions)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("CH3CH2OH", {"C–C": 1, "O–C": 1, "O–H": 1, "C–H": 5}),
        ("C6H6", {"C–C": 6, "C–H": 6}),
        ("H2O", {"O–H": 2}),
    ],
)
def test_bonds_of_molecules(name, kinds):
    atoms, _, bonds = bonds_of(name)
    names = bonds.names(atoms.numbers)
    assert {kind: names.count(kind) for kind in set(names)} == kinds


def test_lengths_over_the_frames():
    _, positions, bonds = bonds_of("CH3CH2OH", frames=50)
    lengths = [[np.linalg.norm(f[i] - f[j]) for i, j in zip(bonds.first, bonds.second, strict=True)] for f in positions]
    np.testing.assert_allclose(bonds.mean, np.mean(lengths, axis=0))
    np.testing.assert_allclose(bonds.longest, np.max(lengths, axis=0))
    np.testing.assert_allclose(bonds.lengths(positions), lengths)


@pytest.mark.parametrize("bond", range(8))
def test_pulling_a_bond_changes_no_other(bond):
    atoms, positions, bonds = bonds_of("CH3CH2OH")
    change = bonds.lengths(pulled(atoms, bonds, bond, 0.3).positions) - bonds.lengths(positions[0])
    np.testing.assert_allclose(change, 0.3 * (np.arange(8) == bond), atol=1e-10)


def test_a_ring_is_not_pulled():
    atoms, _, bonds = bonds_of("C6H6")
    with pytest.raises(ValueError, match="part of a ring"):
        pulled(atoms, bonds, bonds.names(atoms.numbers).index("C–C"), 0.1)


def test_distribution_of_distances():
    two = np.array([[[0.0, 0.0, 0.0], [0.0, 0.0, d]] for d in (1.005, 1.005, 3.005, 12.0)])
    counts = distance_counts(two)
    assert counts[50] == 2
    assert counts[150] == 1
    assert counts.sum() == 3  # 12 Å is beyond
    assert distribution(counts).sum() * FARTHEST / BINS == pytest.approx(1.0)
    assert distribution_error(counts, counts) == 0.0
    # Two distributions that do not overlap differ by one each.
    assert distribution_error(distance_counts(two[:2]), distance_counts(two[2:3])) == pytest.approx(2.0)


def test_the_study_of_a_small_ensemble(tmp_path):
    """EMT's ethanol falls apart with a bad ensemble; the study says so, and a second start repeats nothing."""
    card = crossval(load_config(write_run(tmp_path)), tmp_path / "run", tmp_path / "models", workers=1)
    command = [sys.executable, ROOT / "benchmarks" / "stability.py", str(card.path), tmp_path / "test.extxyz"]
    command += [tmp_path / "ethanol.extxyz", "--picoseconds", "0.05", "--hot-picoseconds", "0.05", "--seeds", "1"]
    command += ["--starts", "1", "--workers", "1", "--runs", tmp_path / "runs", "--output", tmp_path / "docs"]
    first = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    runs = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*.json")}
    assert len(runs) == 2
    assert "| O–H |" in first.stdout
    assert (tmp_path / "docs" / "stability.png").read_bytes().startswith(b"\x89PNG")
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    assert {path: path.stat().st_mtime_ns for path in runs} == runs
