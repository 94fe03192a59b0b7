"""The recipe search: valid variations, errors as the trainings have them, a front that nothing beats."""

import csv
from pathlib import Path

import pytest
import recipe
from click.testing import CliRunner
from recipe import Outcome, on_front

from schnet_ase.networks import SchNetConfig
from tests.support.frames import write_ethanol


@pytest.mark.parametrize("variation", recipe.VARIATIONS, ids=lambda variation: variation.name)
def test_variations_are_valid_and_differ_from_the_recipe(variation):
    config = recipe.configuration(variation, None, Path("x.npz"), 100)
    assert config.training.steps == 100
    same = config == recipe.configuration(recipe.VARIATIONS[0], None, Path("x.npz"), 100)
    assert same == (variation.name == "recipe")


@pytest.mark.parametrize("variation", recipe.VARIATIONS, ids=lambda variation: variation.name)
def test_variations_change_what_they_say_of_any_preset(variation):
    """And nothing else: the default preset has another basis and no envelope."""
    own, default = (recipe.configuration(variation, preset, Path("x.npz"), 100) for preset in (None, "default"))
    changed, base = default.model.to_dict(), SchNetConfig.default().to_dict()
    assert {key for key in base if changed[key] != base[key]} <= variation.model.keys()
    assert all(changed[key] == own.model.to_dict()[key] for key in variation.model)
    assert default.training == own.training


def outcome(name, error, time):
    return Outcome(name, 1, [1.0], [error], [1.0], [time])


def test_front():
    slow, fast, both, worse = (
        outcome(*o) for o in (("a", 1.0, 4.0), ("b", 4.0, 1.0), ("c", 2.0, 2.0), ("d", 3.0, 3.0))
    )
    assert [on_front(o, [slow, fast, both, worse]) for o in (slow, fast, both, worse)] == [True, True, True, False]
    trained_worse = outcome("e", 2.5, 2.0)
    assert not on_front(trained_worse, [both, trained_worse])


def test_means_are_geometric():
    two = Outcome("a", 1, [1.0, 1.0], [2.0, 8.0], [1.0, 1.0], [1.0, 9.0])
    assert two.error == pytest.approx(4.0)
    assert two.time == pytest.approx(3.0)


def test_search(tmp_path):
    """The same command trains nothing again."""
    data = [write_ethanol(tmp_path / f"{name}.extxyz", 80, seed) for seed, name in enumerate(("a", "b"))]
    arguments = [*map(str, data), "--steps", "20", "--runs", str(tmp_path / "runs"), "--output", str(tmp_path)]
    arguments += ["--preset", "small", "--only", "2 interactions", "--only", "16 Gaussians"]
    pages = []
    for _ in range(2):
        result = CliRunner().invoke(recipe.main, arguments)
        assert result.exit_code == 0, result.output
        rows = [line.split(" | ") for line in (tmp_path / "recipe-small-20.md").read_text().splitlines()]
        pages.append({row[0].removeprefix("| "): row[2:5] for row in rows if len(row) == 8})
    assert pages[0] == pages[1]
    for name, folder in (("2 interactions", "2-interactions"), ("16 Gaussians", "16-Gaussians")):
        errors = []
        for file in data:
            with (tmp_path / "runs" / "small" / "20" / file.stem / folder / "metrics.csv").open() as metrics:
                errors.append(float(list(csv.DictReader(metrics))[-1]["force_mae_meV"]))
        assert pages[0][name][0] == " / ".join(f"{error:.2f}" for error in errors)
    assert (tmp_path / "recipe-small-20.png").stat().st_size > 5000


def test_variation_that_does_not_exist(tmp_path):
    result = CliRunner().invoke(recipe.main, [str(write_ethanol(tmp_path / "a.extxyz", 80)), "--only", "33 features"])
    assert result.exit_code == 2
    assert "no variation 33 features; there are recipe, seed 1" in result.output
