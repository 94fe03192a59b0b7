"""The experiments of benchmarks/report: small, but whole."""

import csv
import math

import pytest
import torch
from click.testing import CliRunner
from report import overflow

from schnet_ase.data import read_dataset
from schnet_ase.networks.activation import ssp
from tests.support.frames import write_ethanol


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_ethanol(tmp_path_factory.mktemp("report") / "ethanol.extxyz", 10)


def test_textbook_is_the_same_function_until_it_overflows():
    x = torch.linspace(-50.0, 88.0, 200)
    torch.testing.assert_close(overflow.textbook(x), ssp(x), rtol=1e-5, atol=1e-6)
    assert overflow.textbook(torch.tensor(89.0)).isinf()
    assert ssp(torch.tensor(89.0)).isfinite()


def test_the_textbook_form_ends_where_float32_does(file):
    """At a rate that drives activations up, and not the stable form."""
    frames = list(read_dataset(file).frames[: overflow.FRAMES])
    textbook, stable = (overflow.learn(s, frames, 12, 1.0, lambda: None) for s in overflow.SETTINGS[:2])
    assert "step" in textbook.end
    assert "finite for" not in textbook.end
    assert len(textbook.loss) < 12
    assert textbook.largest[0] == pytest.approx(stable.largest[0], rel=1e-4)
    assert max(textbook.largest[-1]) <= math.log(torch.finfo(torch.float32).max) + 0.7
    assert stable.end == "finite for 12 steps"


def test_overflow(tmp_path, file):
    result = CliRunner().invoke(overflow.main, [str(file), "--steps", "3", "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "overflow.md").read_text()
    with (tmp_path / "overflow.csv").open() as table:
        header, *rows = csv.reader(table)
    assert [row[0] for row in rows[:-2]] == [
        *(f"filter {k}, layer {n}" for k in (1, 2, 3) for n in (1, 2)),
        *(f"interaction {k}" for k in (1, 2, 3)),
        "readout",
    ]
    assert all(" | ".join(row) in page for row in (header, *rows))
    assert (tmp_path / "overflow.png").read_bytes().startswith(b"\x89PNG")


def test_a_first_step_that_is_not_finite(tmp_path, file, monkeypatch):
    """Has no activations before it to show."""
    broken = overflow.SETTINGS[0]._replace(activation=lambda x: x * torch.inf)
    monkeypatch.setattr(overflow, "SETTINGS", (broken, *overflow.SETTINGS[1:]))
    result = CliRunner().invoke(overflow.main, [str(file), "--steps", "2", "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    with (tmp_path / "overflow.csv").open() as table:
        _, *rows = csv.reader(table)
    assert {row[1] for row in rows[:-1]} == {""}
    assert rows[-1][1] == "loss nan at step 1"
    assert all(float(row[2]) > 0.0 for row in rows[:-1])
