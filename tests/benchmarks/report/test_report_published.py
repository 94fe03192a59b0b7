"""The report's tables beside published errors, and its loss curves."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
from ase.units import kcal, mol
from click.testing import CliRunner
from report import authors, losses, validation

from schnet_ase.registry.card import Metrics, write_card
from schnet_ase.training.history import Row, write_metrics
from schnet_ase.uncertainty.metrics import Errors
from tests.support.entries import errors, make_entry


def test_published_errors_are_of_the_molecules():
    assert all(len(p.forces) == len(authors.MOLECULES) for p in authors.PUBLISHED)
    assert authors.in_kcal(2.0, None) == (pytest.approx(2000.0 * kcal / mol), None)
    by_name = {p.method: p for p in authors.PUBLISHED}
    best = by_name["report, 50,000 frames, 10 epochs"]
    assert authors.of(best, "ethanol") == pytest.approx(860.0 * kcal / mol)
    assert authors.of(best, "uracil") == pytest.approx(1160.0 * kcal / mol)


def test_errors_beside_published_ones(tmp_path, monkeypatch):
    """An entry as good as the SchNet authors' network on ethanol, whose members err by 150 meV/Å each."""
    monkeypatch.setenv("SCHNET_ASE_MODELS", str(tmp_path))
    card = make_entry(tmp_path, "rmd17-ethanol")
    result = CliRunner().invoke(authors.main, [])
    assert result.exit_code == 2
    assert "rmd17-ethanol: its card has no test errors; train it with data.test" in result.output
    write_card(replace(card, metrics=Metrics(None, errors(0.0169))), card.path)
    result = CliRunner().invoke(authors.main, ["--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    with (tmp_path / "out" / "authors.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file) if row["molecule"] == "ethanol"}
    ratio = {method: float(row["ours / theirs"]) for method, row in rows.items()}
    assert ratio["ours"] == ratio["SchNet, its authors"] == 1.0
    assert ratio["ours, one member"] == pytest.approx(16.9 / 150.0, abs=5e-4)
    assert ratio["report, 50,000 frames, 10 epochs"] == pytest.approx(0.0169 / (0.86 * kcal / mol), abs=5e-4)
    page = (tmp_path / "out" / "authors.md").read_text()
    assert page.count("quoted, not checked against the paper.") == 2
    assert (tmp_path / "out" / "authors.png").read_bytes().startswith(b"\x89PNG")


def test_qm9_beside_published_errors(tmp_path):
    """An entry that errs by 0.59 kcal/mol, as the SchNet authors' network."""
    card = replace(make_entry(tmp_path, "qm9-u0"), metrics=Metrics(None, errors(None, 0.59 * kcal / mol)))
    name, rows = authors.qm9(card)
    assert name == "QM9, U0:"
    assert [line.split(" | ")[-1] for line in rows.splitlines()[2:]] == ["1.00 |", "0.98 |", "1.00 |", "1.90 |"]
    assert authors.qm9(None) == authors.qm9(replace(card, metrics=Metrics(None, None))) == []


def metrics(folder, exponent, steps=2000, every=100):
    """A training whose loss follows a power law until its learning rate, a cosine, falls below three quarters."""
    rows = []
    for step in range(every, steps + 1, every):
        rate = 0.01 * 0.5 * (1.0 + math.cos(math.pi * step / steps))
        loss = 3.0 * (step - 0.5 * every) ** exponent * (1.0 if rate >= 0.0075 else 0.1)
        if step == every:
            loss *= 20.0
        rows.append(Row(step, 1.0, rate, loss, loss, Errors(1, None, None, None, None, None, None), 1.0))
    folder.mkdir(parents=True)
    write_metrics(rows, folder)


def test_power_law_is_found(tmp_path):
    """Neither the first loss nor the end of the schedule changes it."""
    metrics(tmp_path / "run" / "fold-1", -0.7)
    (curve,) = losses.find_losses(tmp_path / "run")
    law = losses.fit(curve)
    assert law.exponent == pytest.approx(-0.7, abs=1e-4)
    assert law.standard_error < 1e-4
    assert losses.fit(curve, losses.WIDER).exponent < -0.8
    middle = math.sqrt(curve.step[law.first] * curve.step[law.last])
    assert math.exp(law.intercept) * middle**law.exponent == pytest.approx(3.0 * middle**-0.7, rel=1e-3)


def test_losses_of_folds(tmp_path):
    for k, exponent in enumerate((-0.6, -0.7, -0.8), start=1):
        metrics(tmp_path / "run" / f"fold-{k}", exponent)
    metrics(tmp_path / "single", -1.0)
    result = CliRunner().invoke(
        losses.main, [str(tmp_path / "run"), str(tmp_path / "single"), "--output", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    with (tmp_path / "losses.csv").open() as file:
        rows = [(r["run"], r["fold"], r["exponent"], r["standard error"]) for r in csv.DictReader(file)]
    error = f"{np.std((-0.6, -0.7, -0.8), ddof=1) / math.sqrt(3):.3f}"
    assert rows[3:] == [("run", "mean of 3", "-0.700", error), ("single", "", "-1.000", "0.000")]
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_validation_losses_of_folds(tmp_path):
    """Those of a power law, from the second tenth of the steps on."""
    for k, exponent in enumerate((-0.5, -1.0), start=1):
        metrics(tmp_path / "run" / f"fold-{k}", exponent, steps=1000)
    result = CliRunner().invoke(validation.main, [str(tmp_path / "run"), "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    with (tmp_path / "validation.csv").open() as file:
        rows = list(csv.DictReader(file))
    means = []
    for row, k in zip(rows, (1, 2), strict=True):
        table = np.genfromtxt(tmp_path / "run" / f"fold-{k}" / "metrics.csv", delimiter=",", names=True)
        losses = table["validation_loss"][table["step"] > 100] / (kcal / mol) ** 2
        expected = [losses.min(), losses.max(), losses.mean(), losses.std()]
        assert [float(row[name]) for name in validation.HEADER[2:]] == pytest.approx(expected, rel=5e-3)
        assert row["validations"] == "9"
        means.append(losses.mean())
    assert f"within a factor of {max(means) / min(means):.3f} of each other" in " ".join(result.output.split())
    assert (tmp_path / "validation.png").read_bytes().startswith(b"\x89PNG")


def test_runs_that_cannot_be_fitted(tmp_path):
    metrics(tmp_path / "short", -0.7, steps=300)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "metrics.csv").write_text("a,b\n1,2\n")
    for name, message in (
        ("short", "validations while the learning rate is high; expected at least 4"),
        ("empty", "no metrics.csv there or in fold-*; expected the folder of a run"),
        ("other", "not the metrics of a training; expected step, learning_rate and losses"),
    ):
        result = CliRunner().invoke(losses.main, [str(tmp_path / name)])
        assert result.exit_code == 2
        assert message in result.output
