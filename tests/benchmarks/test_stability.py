"""What the stability study measures: pulls, distances and onsets, against what is known by hand."""

import subprocess
import sys

import flag_rate
import numpy as np
import pytest
import stability
from _pulls import Pull, pulled
from _stability_results import BINS, FARTHEST, distance_counts, distribution, distribution_error, onset
from ase.build import molecule
from ase.io import read
from click.testing import CliRunner

from schnet_ase import SchNetEnsembleCalculator
from schnet_ase.stability.bonds import find_bonds
from schnet_ase.training import crossval, load_config
from tests.support.entries import make_entry
from tests.support.frames import write_ethanol, write_run
from tests.support.paths import ROOT


@pytest.mark.parametrize("bond", range(8))
def test_pulling_a_bond_changes_no_other(bond):
    atoms = molecule("CH3CH2OH")
    bonds = find_bonds(atoms)
    change = bonds.lengths(pulled(atoms, bonds, bond, 0.3).positions) - bonds.lengths(atoms.positions)
    np.testing.assert_allclose(change, 0.3 * (np.arange(8) == bond), atol=1e-10)


def test_a_ring_is_not_pulled():
    atoms = molecule("C6H6")
    bonds = find_bonds(atoms)
    with pytest.raises(ValueError, match="part of a ring"):
        pulled(atoms, bonds, bonds.names().index("C–C"), 0.1)


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


def test_onset_is_where_the_last_excursion_began():
    above = np.zeros(1000, dtype=bool)
    assert onset(above, 100) is None
    above[99] = True  # an earlier one, over for more than 100 steps
    above[[599, 650, 749, 849, 949]] = True
    assert onset(above, 100) == 600
    assert onset(above[:900], 100) == 600
    assert onset(above[:600], 100) == 600
    assert onset(above[:599], 100) is None  # it was over for 499 steps


def test_first_flag_of_a_pull():
    pull = Pull("O–H", 0, np.array([-0.1, 0.0, 0.1, 0.2]), np.array([0.01, 0.02, 0.3, np.nan]))
    assert pull.flagged_at(0.2) == 0.1
    assert pull.flagged_at(0.5) == 0.2
    assert pull._replace(deviation=np.full(4, 0.02)).flagged_at(0.5) == np.inf


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A calibrated ensemble that has learned little, and its data."""
    folder = tmp_path_factory.mktemp("small")
    return crossval(load_config(write_run(folder)), folder / "run", folder / "models", workers=1), folder


def test_the_study_of_a_small_ensemble(small, tmp_path):
    """The page and the picture, and a second start repeats nothing but the run that is missing."""
    card, folder = small
    command = [sys.executable, ROOT / "benchmarks" / "stability.py", str(card.path), folder / "test.extxyz"]
    command += [
        folder / "ethanol.extxyz",
        "--picoseconds",
        "0.05",
        "--hot-picoseconds",
        "0.05",
        "--seeds",
        "2",
        "--hot-seeds",
        "2",
    ]
    command += ["--starts", "1", "--workers", "1", "--runs", tmp_path / "runs", "--output", tmp_path / "docs"]
    first = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert first.returncode == 0, first.stderr
    runs = sorted((tmp_path / "runs").glob("*.npz"))
    assert len(runs) == 4
    assert "| O–H | 2 |" in first.stdout
    assert "| C–H | 10 |" in first.stdout
    page, picture = (tmp_path / "docs" / f"stability-{card.name}.{suffix}" for suffix in ("md", "png"))
    assert page.read_text() in first.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    runs[0].unlink()
    times = {path: path.stat().st_mtime_ns for path in runs[1:]}
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    assert runs[0].exists()
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_flag_rate(small):
    """The shares are those that the calculator finds frame by frame."""
    card, folder = small
    files = [write_ethanol(folder / "calm.extxyz", 40, seed=4), write_ethanol(folder / "hot.extxyz", 40, 5, 0.1)]
    result = CliRunner().invoke(flag_rate.main, [str(card.path), *map(str, files), "--rate", "0.2"])
    assert result.exit_code == 0, result.output
    calculator = SchNetEnsembleCalculator(card.path)
    threshold = calculator.calibration.threshold(0.2)
    shares = []
    for file in files:
        largest = [calculator.get_property("forces_deviation", atoms).max() for atoms in read(file, ":")]
        shares.append(np.mean(np.array(largest) > threshold))
    assert 0.0 < shares[0] < shares[1]
    assert [f"{share:.1%}" for share in shares] == [
        row.split("|")[3].strip() for row in result.output.splitlines()[-2:]
    ]
    assert f"{threshold:.4f} eV/Å" in result.output
    for column in (4, 5):
        at_rate = [float(row.split("|")[column].strip(" %")) for row in result.output.splitlines()[-2:]]
        assert at_rate[0] == 20.0 < at_rate[1]


def test_other_molecules_and_entries_without_calibration_are_refused(small, tmp_path):
    card, folder = small
    test = str(folder / "test.extxyz")
    other = tmp_path / "water.extxyz"
    molecule("H2O").write(other)
    for arguments, message in (
        ([str(card.path), str(other), test], "frame 0 has the atomic numbers [8, 1, 1]; expected [6, 6, 8"),
        ([str(make_entry(tmp_path).path), test, test], "has no calibration, so no threshold; run schnet-ase calibrate"),
    ):
        result = CliRunner().invoke(stability.main, arguments)
        assert result.exit_code == 2
        assert message in result.output
        assert result.output.count("\n") == 1
