"""Table 4 of the report: spreads and errors of an ensemble on frames that no fold saw."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from ase.io import read, write
from click.testing import CliRunner
from report import spread

from schnet_ase import SchNetCalculator
from schnet_ase.data import read_dataset
from schnet_ase.evaluation.evaluate import evaluate_dataset
from schnet_ase.registry.card import write_card
from schnet_ase.registry.loading import locate_members
from schnet_ase.uncertainty.fit import calibrate
from schnet_ase.uncertainty.metrics import KCAL_PER_MOL
from tests.support.entries import errors, make_entry
from tests.support.frames import write_ethanol


@pytest.fixture
def entry(tmp_path, monkeypatch):
    monkeypatch.setenv("SCHNET_ASE_MODELS", str(tmp_path / "models"))
    card = make_entry(tmp_path / "models", "tiny", (errors(0.1),) * 5)
    other = read_dataset(write_ethanol(tmp_path / "other.extxyz", 30, seed=7))
    found = evaluate_dataset([loaded.model for loaded in locate_members("tiny")], other).ensemble_errors()
    members = tuple(member.sha256 for member in card.members)
    calibration = calibrate(found, file="other.extxyz", sha256=other.sha256, members=members)
    write_card(replace(card, calibration=calibration), card.path)
    return "tiny"


def test_spreads_and_errors_are_those_of_the_calculator(entry, tmp_path):
    files = [write_ethanol(tmp_path / f"{name}.extxyz", 12, seed=k) for k, name in enumerate(("near", "far"))]
    result = CliRunner().invoke(spread.main, [entry, *map(str, files), "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    with (tmp_path / "spread.csv").open() as file:
        rows = {(name, of): values for name, of, *values in list(csv.reader(file))[1:]}
    assert (tmp_path / "spread.png").stat().st_size > 0
    assert set(rows) == {
        (name, of) for name in ("near", "far") for of in ("energy", "force x", "force y", "force z", "force")
    }
    frames = read(files[1], ":")
    reference = np.concatenate([atoms.get_forces() for atoms in frames])
    members = []
    for loaded in locate_members(entry):
        calculator = SchNetCalculator(loaded.model, dtype="float64")
        members.append(np.concatenate([calculator.get_forces(atoms) for atoms in frames]))
    error = np.mean(members, axis=0) - reference
    each = np.abs(members - reference)[:, :, 1].mean(axis=1)
    std_y = np.std(members, axis=0, ddof=1)[:, 1]
    of_mean, of_each, *spreads, theirs, _, _ = rows["far", "force y"]
    assert float(of_mean) == pytest.approx(KCAL_PER_MOL * np.abs(error[:, 1]).mean(), abs=6e-4)
    best, worst = map(float, of_each.split(" to "))
    assert [best, worst] == pytest.approx([KCAL_PER_MOL * each.min(), KCAL_PER_MOL * each.max()], abs=6e-4)
    expected = [KCAL_PER_MOL * value for value in (std_y.min(), std_y.max(), std_y.mean())]
    assert list(map(float, spreads)) == pytest.approx(expected, abs=6e-4)
    assert theirs == "0.64"
    lengths = np.linalg.norm(error, axis=1)
    assert float(rows["far", "force"][0]) == pytest.approx(KCAL_PER_MOL * lengths.mean(), abs=6e-4)


def test_frames_without_forces_are_one_line(entry, tmp_path):
    frames = read(write_ethanol(tmp_path / "whole.extxyz", 3), ":")
    for atoms in frames:
        del atoms.calc.results["forces"]
    write(tmp_path / "energies.extxyz", frames)
    result = CliRunner().invoke(spread.main, [entry, str(tmp_path / "energies.extxyz")])
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].endswith("expected energies and forces; give frames that have both")
