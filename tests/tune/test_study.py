"""The study: what it draws, prunes and finds important, and what it finds again."""

import contextlib
import sqlite3
import sys

import pytest

from schnet_ase.errors import TrainingError
from schnet_ase.training.config.tune import SearchRange
from schnet_ase.training.history import Row
from schnet_ase.tune.study import open_study
from schnet_ase.tune.trials import Trial
from schnet_ase.uncertainty.metrics import Errors

SEARCH = {"a": SearchRange(low=1e-3, high=1.0, log=True), "b": SearchRange(low=1, high=9)}


def row(step, loss):
    return Row(step, 1.0, 1e-3, loss, loss, Errors(1, None, None, None, None, None, None), 1.0)


def complete(study, loss_of):
    """A trial whose training is left out."""
    draft = study.draw()
    losses = [row(10, 2.0 * loss_of(draft.values)), row(20, loss_of(draft.values))]
    for loss in losses:
        draft.report(loss)
    study.keep(draft, Trial(draft.number, draft.values, "complete", losses[-1], losses[-1], draft.folder))


def end(study, draft):
    """A trial whose training is left out."""
    losses = [row(10, 2.0), row(20, 1.0 + draft.number)]
    for loss in losses:
        draft.report(loss)
    study.keep(draft, Trial(draft.number, draft.values, "complete", losses[-1], losses[-1], draft.folder))


def test_trials_under_way_are_found_again_and_end_in_any_order(tmp_path, monkeypatch):
    def study(name):
        return open_study(tmp_path / name, SEARCH, 0, {})

    def known(drafts):
        return [(draft.number, draft.values, draft.folder) for draft in drafts]

    with study("one by one") as one_by_one:
        for _ in range(4):
            end(one_by_one, one_by_one.draw())
        expected = one_by_one.trials
    with study("together") as together:
        begun = [together.begin(together.draw()) for _ in range(3)]
        end(together, begun[1])
        assert [t.number for t in together.trials] == [1]
    with study("together") as together, monkeypatch.context() as patch:
        again = together.under_way()
        assert known(again) == known([begun[0], begun[2]])
        patch.setattr("optuna.Study.tell", lambda *a: sys.exit("killed"))
        with pytest.raises(SystemExit):
            end(together, again[1])
    with study("together") as together:
        together.begin(together.draw())
        for draft in reversed(together.under_way()):
            end(together, draft)
        assert together.under_way() == []
        assert together.trials == expected


def test_pruning_begins_after_five_trials_and_spares_the_better_half(tmp_path):
    with open_study(tmp_path / "study.sqlite", SEARCH, 0, {}) as study:
        for n in range(6):
            drafts = study.draw(), study.draw()
            for draft, loss in zip(drafts, (1.99, 2.01), strict=True):
                draft.report(row(10, loss))
            assert [d.should_prune() for d in drafts] == [False, n == 5]
            if n < 5:
                complete(study, lambda values: 1.0)


def test_what_is_drawn_depends_on_the_seed_the_number_and_what_was_found(tmp_path):
    def drawn(name, seed, loss_of, at_once):
        values = []
        while len(values) < 12:
            with open_study(tmp_path / name, SEARCH, seed, {}) as study:
                for _ in range(at_once):
                    complete(study, loss_of)
                values = [trial.values for trial in study.trials]
        return values

    one = drawn("one", 0, lambda values: values["a"], 12)
    assert drawn("in parts", 0, lambda values: values["a"], 4) == one
    assert len({values["a"] for values in one}) == 12
    other = drawn("other", 0, lambda values: -values["a"], 12)
    assert other[:10] == one[:10], "at random, before Optuna looks at what was found"
    assert other[11] != one[11]
    with open_study(tmp_path / "seed", SEARCH, 1, {}) as study:
        assert study.draw().values != one[0]


def test_the_key_that_matters_is_important(tmp_path):
    with open_study(tmp_path / "study.sqlite", SEARCH, 0, {}) as study:
        assert study.importances() == {}
        for _ in range(12):
            complete(study, lambda values: values["a"])
        importances = study.importances()
    assert importances["a"] > importances["b"]
    assert sum(importances.values()) == pytest.approx(1.0)


def test_a_damaged_study_is_one_line(tmp_path):
    (tmp_path / "study.sqlite").write_text("not a database" * 100)
    with (
        pytest.raises(TrainingError, match="study.sqlite: cannot be used .*not a database") as caught,
        open_study(tmp_path / "study.sqlite", SEARCH, 0, {}),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_a_study_of_another_optuna_is_one_line(tmp_path):
    file = tmp_path / "study.sqlite"
    with open_study(file, SEARCH, 0, {}):
        pass
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    with (
        pytest.raises(TrainingError, match="study.sqlite: written by another version of Optuna than") as caught,
        open_study(file, SEARCH, 0, {}),
    ):
        pass
    assert "\n" not in str(caught.value)
