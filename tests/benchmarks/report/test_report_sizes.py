"""The report's three networks at equal steps and at equal time, benchmarks/report/sizes.py."""

import csv

import pytest
from click.testing import CliRunner
from report import sizes
from report.sizes import HEADER, Course

from schnet_ase.training.history import Row
from schnet_ase.uncertainty.metrics import Errors
from tests.support.frames import write_ethanol


def course(name, *points):
    """Of steps and seconds; the loss of a step is one over it."""
    errors = Errors(1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.2)
    return Course(name, 1000, [Row(step, 0.0, 1e-3, 0.0, 1.0 / step, errors, seconds) for step, seconds in points])


def test_equal_time_is_that_of_the_quickest():
    quick = course("quick", (5, 1.0), (10, 2.0), (20, 4.0))
    slow = course("slow", (5, 1.9), (10, 4.0), (20, 8.0))
    slower = course("slower", (5, 5.0), (10, 10.0), (20, 20.0))
    rows = [dict(zip(HEADER, row, strict=True)) for row in sizes.rows([slow, quick, slower])]
    assert [row["network"] for row in rows] == ["slow", "quick", "slower"] * 2
    assert [row["at equal"] for row in rows] == ["steps"] * 3 + ["time"] * 3
    assert [row["step"] for row in rows] == ["20", "20", "20", "10", "20", "–"]
    assert [row["s"] for row in rows] == ["8.0", "4.0", "20.0", "4.0", "4.0", "–"]
    assert [row["loss ((eV/Å)²)"] for row in rows] == ["0.05", "0.05", "0.05", "0.1", "0.05", "–"]


def test_until():
    history = course("a", (5, 1.0), (10, 2.0))
    assert [row and row.step for row in map(history.until, (0.5, 1.0, 1.5, 9.0))] == [None, 5, 5, 10]


def test_sizes(tmp_path):
    """Twice: the second time nothing is trained, and the page is the same with its times."""
    file = write_ethanol(tmp_path / "ethanol.extxyz", 10)
    arguments = [str(file), "--steps", "2", "--runs", str(tmp_path / "runs"), "--output", str(tmp_path)]
    pages = []
    for _ in range(2):
        result = CliRunner().invoke(sizes.main, arguments)
        assert result.exit_code == 0, result.output
        pages.append((tmp_path / "sizes.md").read_text())
    assert pages[0] == pages[1]
    with (tmp_path / "sizes.csv").open() as table:
        header, *rows = csv.reader(table)
    assert all(" | ".join(row) in pages[0] for row in (header, *rows))
    assert [row[:2] for row in rows[:3]] == [["small", "13345"], ["default", "116225"], ["large", "874817"]]
    for row in rows[:3]:
        with (tmp_path / "runs" / "ethanol" / row[0] / "metrics.csv").open() as metrics:
            last = list(csv.DictReader(metrics))[-1]
        assert row[3] == last["step"] == "2"
        assert float(row[5]) == pytest.approx(float(last["validation_loss"]), rel=5e-3)
        assert float(row[7]) == pytest.approx(float(last["force_mae_meV"]), abs=0.051)
    assert (tmp_path / "sizes.png").read_bytes().startswith(b"\x89PNG")
