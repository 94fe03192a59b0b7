"""Students of several sizes in one table."""

import pytest
import students
from click.testing import CliRunner

from schnet_ase.registry.card import read_card
from schnet_ase.training import crossval, load_config
from schnet_ase.training.distill import dynamics
from tests.support.frames import TOML, write_run


def test_sizes_share_frames_and_have_a_row_each(tmp_path, monkeypatch):
    monkeypatch.setattr(dynamics, "SETTLE", 10)
    monkeypatch.setattr(students, "milliseconds_per_step", lambda atoms, models: [float(k) for k in range(len(models))])
    crossval(load_config(write_run(tmp_path, TOML)), tmp_path / "run", tmp_path / "models", workers=1)
    entry = tmp_path / "models" / "ethanol-emt"
    options = ["--data-root", str(tmp_path), "--output", str(tmp_path / "out"), "--frames", "10", "--steps", "5"]
    result = CliRunner().invoke(
        students.main, [str(entry), "--sizes", "1x4,2x20", "--temperatures", "20", "60", *options]
    )
    assert result.exit_code == 0, result.output
    rows = [line.strip("| ").split(" | ") for line in result.output.splitlines() if line.startswith("|")][2:]
    assert [row[0] for row in rows] == ["1x4", "2x20", "best member", "mean of 4"]
    assert read_card(entry).student is None
    for row, time in zip(rows[:2], (0.0, 1.0), strict=True):
        card = read_card(tmp_path / "out" / row[0] / "models" / "ethanol-emt")
        assert float(row[2]) == pytest.approx(1000.0 * card.student.test.force_mae, abs=0.01)
        assert float(row[3]) == pytest.approx(card.student.ratio(card.metrics.test), abs=1e-3)
        assert float(row[6]) == time
    one, other = (
        [file.read_bytes() for file in sorted((tmp_path / "out" / size / "frames").glob("*.npz"))]
        for size in ("1x4", "2x20")
    )
    assert one == other
    assert float(rows[3][6]) == 2.0 + 3.0 + 4.0 + 5.0


def test_a_size_that_is_none():
    result = CliRunner().invoke(students.main, ["x", "--sizes", "6x64,wide", "--data-root", "d", "--output", "o"])
    assert result.exit_code == 2
    assert "'wide' is no size; expected interactions and features, as 6x64" in result.output
