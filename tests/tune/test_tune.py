"""The search over hyperparameters: the better setting wins, nothing is lost by a kill, every mistake is one line."""

import contextlib
import csv
import dataclasses
import pickle
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from schnet_ase.crossval.run import train_folds
from schnet_ase.data import held_out
from schnet_ase.errors import ConfigError, TrainingError
from schnet_ase.registry.checkpoint import read_provenance
from schnet_ase.training import load_config, tune
from schnet_ase.training.config import absolute
from schnet_ase.training.run import load_frames
from schnet_ase.training.subsets import split_for_crossval
from tests.support.frames import write_run

PLAIN = """
name = "ethanol-emt"
folds = 4
seed = 5
[data]
file = "ethanol.extxyz"
test = 7
calibration = 10
[model]
n_features = 8
n_interactions = 1
n_rbf = 4
radial = "gaussian"
[training]
steps = 20
batch_size = 5
warmup = 2
ema = 0.0
validate_every = 5
"""
RATE = "training.learning_rate"
TOML = f"""{PLAIN}
[tune]
trials = 6
{RATE} = {{ low = 1e-9, high = 1e-2, log = true }}
training.batch_size = {{ low = 4, high = 6 }}
"""


def configured(folder, search, trials=2, **training):
    """A run that searches in the ranges of lines of TOML."""
    config = load_config(write_run(folder, f"{PLAIN}\n[tune]\ntrials = {trials}\n{search}"))
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **training))


def with_trials(config, trials):
    return dataclasses.replace(config, tune=dataclasses.replace(config.tune, trials=trials))


def without_time(trials):
    def row(row):
        return None if row is None else row._replace(seconds=0.0)

    return [t._replace(last=row(t.last), best=row(t.best)) for t in trials]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A search of six trials: its folder and its result."""
    folder = tmp_path_factory.mktemp("tune")
    return folder, tune(load_config(write_run(folder, TOML)), folder / "run")


def test_best_is_the_smallest_loss_of_those_trained_to_the_end(finished):
    folder, result = finished
    complete = [t for t in result.trials if t.state == "complete"]
    assert result.best in complete
    assert result.best.best.validation_loss == min(t.best.validation_loss for t in complete)
    kept = read_provenance(folder / "run" / result.best.folder / "fold-1" / "best.safetensors")
    assert kept["training"]["learning_rate"] == result.best.values[RATE]
    assert kept["validation"]["validation_loss"] == result.best.best.validation_loss


def test_pruned_trials_were_worse_than_the_median(finished):
    """As the metrics of the trainings themselves have it."""
    folder, result = finished

    def losses(trial):
        with (folder / "run" / trial.folder / "fold-1" / "metrics.csv").open() as file:
            return {int(row["step"]): float(row["validation_loss"]) for row in csv.DictReader(file)}

    pruned = [t for t in result.trials if t.state == "pruned"]
    assert pruned
    for trial in pruned:
        own, step = losses(trial), trial.last.step
        assert max(own) == step < 20
        before = [losses(t)[step] for t in result.trials[: trial.number] if t.state == "complete"]
        assert len(before) >= 5
        assert min(own.values()) > statistics.median(before)


def test_table_and_picture(finished):
    folder, result = finished
    with (folder / "run" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(int(r["trial"]), r["state"], float(r[RATE]), int(r["training.batch_size"])) for r in rows] == [
        (t.number, t.state, t.values[RATE], t.values["training.batch_size"]) for t in result.trials
    ]
    for row, trial in zip(rows, result.trials, strict=True):
        assert float(row["force_mae_meV"]) == pytest.approx(1000 * trial.best.errors.force_mae, abs=1e-3)
        assert int(row["last_step"]) == trial.last.step
    assert (folder / "run" / "trials.png").read_bytes().startswith(b"\x89PNG")


def test_best_settings_are_a_configuration(finished, tmp_path, monkeypatch):
    """From any folder; and the first fold of its cross-validation is trained."""
    folder, result = finished
    config = load_config(folder / "run.toml")
    monkeypatch.chdir(tmp_path)
    best = load_config(folder / "run" / "best.toml")
    assert best == dataclasses.replace(config.with_values(result.best.values), data=absolute(config.data))
    split = split_for_crossval(best, load_frames(best.data.file, best))
    reports = []
    train_folds(best, split.folds[:1], folder / "run" / result.best.folder, workers=1, report=reports.append)
    assert [r.step for r in reports] == [20]


def test_no_frame_for_tests_or_calibration_is_touched(finished):
    folder, result = finished
    config = load_config(folder / "run.toml")
    kept_apart = {*split_for_crossval(config, load_frames(config.data.file, config)).calibration.tolist()}
    kept_apart |= {*held_out(40, 7, config.seed).tolist()}
    assert len(kept_apart) == 17
    for trial in result.trials:
        provenance = read_provenance(folder / "run" / trial.folder / "fold-1" / "best.safetensors")
        assert kept_apart.isdisjoint(provenance["training_frames"])
        assert kept_apart.isdisjoint(provenance["validation_frames"])
        assert len({*provenance["training_frames"], *provenance["validation_frames"]}) == 23


def test_a_finished_search_is_not_repeated(finished):
    folder, result = finished
    reports = []
    again = tune(load_config(folder / "run.toml"), folder / "run", report=reports.append)
    assert again == result
    assert not reports


def test_other_configuration_in_the_folder_is_refused(finished):
    folder, _ = finished
    other = folder / "other.toml"
    other.write_text(TOML.replace("low = 1e-9", "low = 1e-8").replace("calibration = 10", "calibration = 9"))
    with pytest.raises(TrainingError, match=rf"other data\.calibration, tune\.{RATE}\.low; choose another") as caught:
        tune(load_config(other), folder / "run")
    assert "\n" not in str(caught.value)


KILLED = """
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from schnet_ase.training import load_config, tune

def report(progress):
    if (progress.trial, progress.step) == (1, 12):
        os.kill(os.getpid(), signal.SIGKILL)

folder, config = Path(sys.argv[1]), load_config(sys.argv[2])
tune(config, folder, report=report)
"""


def test_kill_9_and_again(finished, tmp_path):
    """In the middle of the second trial, which goes on from its checkpoint as if nothing had been."""
    folder, whole = finished
    process = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "run", folder / "run.toml"])
    assert process.returncode == -signal.SIGKILL
    reports = []
    resumed = tune(with_trials(load_config(folder / "run.toml"), 2), tmp_path / "run", report=reports.append)
    assert without_time(resumed.trials) == without_time(whole.trials[:2])
    assert [(r.trial, r.step) for r in reports] == [(1, step) for step in range(10, 21)]


class Killed(Exception):
    pass


def test_killed_before_a_trained_trial_is_kept(finished, tmp_path):
    folder, whole = finished
    config = with_trials(load_config(folder / "run.toml"), 1)

    def kill(progress):
        if progress.step == 20:
            raise Killed

    with pytest.raises(Killed):
        tune(config, tmp_path, report=kill)
    reports = []
    resumed = tune(config, tmp_path, report=reports.append)
    assert [r.step for r in reports] == [20]
    assert without_time(resumed.trials) == without_time(whole.trials[:1])


def test_the_better_of_two_values_is_found_and_each_trained_once(tmp_path):
    config = configured(tmp_path, f"{RATE} = {{ choices = [1e-9, 1e-2] }}", trials=3)
    result = tune(config, tmp_path / "run")
    assert {t.values[RATE] for t in result.trials} == {1e-9, 1e-2}
    assert result.best.values == {RATE: 1e-2}
    assert len({t.folder for t in result.trials}) == len(list((tmp_path / "run").glob("trial-*"))) == 2
    for trial in result.trials:
        same = result.trials[int(trial.folder.removeprefix("trial-"))]
        assert (trial.values, trial.best) == (same.values, same.best)


def test_a_search_survives_what_diverges_and_what_is_not_valid_together(tmp_path):
    rates = f"{RATE} = {{ choices = [1e30, 1e-3] }}"
    radial = 'model.radial = { choices = ["gaussian", "exponential"] }\nmodel.gamma = { low = 5.0, high = 20.0 }'
    config = configured(tmp_path, f"{rates}\n{radial}", trials=4, schedule="report")
    result = tune(config, tmp_path / "run")
    reasons = set()
    for trial in result.trials:
        wrong = "exponential" if trial.values["model.radial"] == "exponential" else trial.values[RATE]
        reason = {"exponential": "takes none", 1e30: "lower training.learning_rate", 1e-3: ""}[wrong]
        assert (trial.state == "complete") == (reason == "")
        assert reason in trial.reason
        reasons.add(reason)
    assert len(reasons) == 3
    assert result.best.values[RATE] == 1e-3


def test_a_search_in_which_all_diverge(tmp_path):
    config = configured(tmp_path, f"{RATE} = {{ low = 1e29, high = 1e30 }}", schedule="report")
    with pytest.raises(TrainingError, match="none of 2 trials was trained to its end.*lower training.learning_rate"):
        tune(config, tmp_path / "run")
    assert "failed" in (tmp_path / "run" / "trials.csv").read_text()


class Inline:
    """In place of a cluster of three: what was started last ends first."""

    def __init__(self):
        self.under_way, self.most = {}, 0

    def capacity(self):
        return 3

    def start(self, function, folder, *arguments):
        assert folder not in self.under_way, "two trainings in one folder"
        self.under_way[folder] = function, pickle.dumps(arguments)
        self.most = max(self.most, len(self.under_way))

    def wait(self, report):
        function, arguments = self.under_way.popitem()[1]
        return [function(*pickle.loads(arguments), report)]


def test_trials_side_by_side_are_those_one_after_the_other(tmp_path, monkeypatch):
    """As far as they follow from the seed alone; and of the same settings there is one training at a time."""
    inline = Inline()
    monkeypatch.setattr(sys.modules["schnet_ase.tune.tune"], "check_ray", lambda: None)
    monkeypatch.setattr("schnet_ase.tune.ray_trials.ray_tasks", lambda *a: contextlib.nullcontext(inline))
    config = configured(tmp_path, f"{RATE} = {{ choices = [1e-9, 1e-2] }}", trials=4)
    ended = []
    together = tune(config, tmp_path / "together", executor="ray", ray_address="auto", finished=ended.append)
    assert without_time(together.trials) == without_time(tune(config, tmp_path / "one by one").trials)
    assert [t.number for t in ended] != sorted(t.number for t in ended)
    assert len({t.folder for t in ended}) == 2
    assert inline.most > 1


@pytest.mark.parametrize("arguments", [{"workers": 2}, {"ray_address": "auto"}])
def test_what_is_for_ray_alone(tmp_path, arguments):
    config = load_config(write_run(tmp_path, TOML))
    with pytest.raises(TrainingError, match="for executor = 'ray' alone"):
        tune(config, tmp_path / "run", **arguments)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("training.learning_rate", "training.learning_rat", "key tune.training.learning_rat is unknown"),
        ("training.batch_size", "model.preset", "key tune.model.preset is unknown"),
        ("training.batch_size", "data.calibration", "key tune.data is unknown"),
        ("low = 4", "lo = 4", "key tune.training.batch_size.lo is unknown"),
        ("low = 4, ", "", "expected low and high, or choices"),
        ("low = 4", "low = 6", "expected low < high"),
        ("low = 4", "low = 0", "key tune.training.batch_size is 0; input should be greater than or equal to 1"),
        ("low = 4", "low = 4.0", "key tune.training.batch_size is 4.0"),
        ("low = 1e-9", "low = -1.0", "expected low < high, both above 0"),
        ("low = 4, high = 6", "choices = [4]", "expected two or more choices that differ"),
        ("low = 4, high = 6", "choices = [4, 4]", "expected two or more choices that differ"),
        ("low = 4, high = 6", "choices = [4, 5], low = 4", "expected choices alone"),
        ("low = 4, high = 6", "choices = [4, 'five']", "key tune.training.batch_size is 'five'"),
        ("training.learning_rate", "training.energy_weight", "part of the loss that trials are compared by"),
        ("trials = 6", "trials = 0", "key tune.trials is 0"),
        ("trials = 6", "", "key tune.trials is missing"),
    ],
)
def test_mistakes_in_the_table_are_one_line(tmp_path, old, new, message):
    assert old in TOML
    with pytest.raises(ConfigError) as caught:
        load_config(write_run(tmp_path, TOML.replace(old, new)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_to_search(tmp_path):
    with pytest.raises(ConfigError, match="expected a key to search"):
        load_config(write_run(tmp_path, f"{PLAIN}\n[tune]\ntrials = 2"))


def test_command(tmp_path, run, mistake, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write_run(tmp_path, TOML.replace("trials = 6", "trials = 1"))
    status, out, err = run("tune", file)
    assert status == 0
    assert err.startswith("ethanol.extxyz: labels: energy from results['energy'] (eV, assumed), forces from")
    assert err.count("\n") == 1
    folder = Path("runs/ethanol-emt-tune")
    assert out.count("trial 0: ") == 2, "at its end, and as the best"
    assert f"wrote {folder}/best.toml, {folder}/trials.csv, {folder}/trials.png" in out
    assert f"schnet-ase crossval {folder}/best.toml --output {folder}/trial-0\n" in out
    file.write_text(TOML)
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "schnet_ase.tune.study")
    assert "pip install 'schnet_ase[tune]'" in mistake("tune", file)
    file.write_text(PLAIN)
    assert "no table [tune]" in mistake("tune", file)
