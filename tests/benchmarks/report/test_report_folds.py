"""Five folds learned from total energies and less the references, benchmarks/report/folds.py."""

import csv

import pytest
from ase.io import write
from click.testing import CliRunner
from report import folds
from report.folds import HEADER, Course

from schnet_ase import SchNetConfig
from schnet_ase.training.history import Row
from schnet_ase.uncertainty.metrics import KCAL_PER_MOL, Errors
from tests.support.frames import labelled_ethanol


def validation(step, loss, energy_mae, energy_rmse):
    return Row(step, 0.0, 1e-3, 0.0, loss, Errors(1, energy_mae, energy_rmse, 0.0, 0.0, 0.1, 0.1), 1.0)


def test_an_offset_of_all_energies_is_told_from_scatter():
    """0.01 · 2² of a loss of 0.05 is the energy's; what came in the first half does not count."""
    course = Course("total energies", 2, [validation(50, 9.0, 1.0, 1.0), validation(60, 0.05, 2.0, 2.0)])
    course = course._replace(rows=[*course.rows, validation(100, 0.01, 0.1, 0.125)])
    row = dict(zip(HEADER, folds.row(course), strict=True))
    assert float(row["maximum"]) == pytest.approx(0.05 * KCAL_PER_MOL**2, rel=5e-3)
    assert float(row["minimum"]) == pytest.approx(0.01 * KCAL_PER_MOL**2, rel=5e-3)
    assert row["energy's part of the maximum"] == "80.0%"
    assert float(row["energy RMSE there (kcal/mol)"]) == pytest.approx(2.0 * KCAL_PER_MOL, abs=0.05)
    assert row["MAE / RMSE of the energy there"] == "1.000"


def test_folds(tmp_path, monkeypatch):
    """Twice: the second time nothing is trained. Total energies start from their whole size, thousands of kcal/mol."""
    monkeypatch.setattr(folds, "NETWORK", SchNetConfig(n_features=4, n_interactions=1, n_rbf=4, readout_features=4))
    frames = labelled_ethanol(10)
    for atoms in frames:
        atoms.calc.results["energy"] -= 4200.0
    write(tmp_path / "ethanol.extxyz", frames, format="extxyz")
    arguments = [
        str(tmp_path / "ethanol.extxyz"),
        "--steps",
        "2",
        "--runs",
        str(tmp_path / "runs"),
        "--output",
        str(tmp_path),
    ]
    pages = []
    for _ in range(2):
        result = CliRunner().invoke(folds.main, arguments)
        assert result.exit_code == 0, result.output
        pages.append((tmp_path / "folds.md").read_text())
    assert pages[0] == pages[1]
    with (tmp_path / "folds.csv").open() as table:
        rows = list(csv.DictReader(table))
    expected = [(target, str(k)) for target in folds.TARGETS for k in range(1, 6)]
    assert [(row["learned from"], row["fold"]) for row in rows] == expected
    assert all(float(a["mean"]) > 100.0 * float(b["mean"]) for a, b in zip(rows[:5], rows[5:], strict=True))
    assert all(float(row["MAE / RMSE of the energy there"]) > 0.999 for row in rows[:5])
