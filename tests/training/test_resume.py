"""A training that was killed resumes with the same numbers; what is another training is refused."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest

from schnet_ase.errors import TrainingError
from schnet_ase.registry.checkpoint import read_tensors, write_tensors
from schnet_ase.training import load_config, train_from_config
from tests.support.frames import write_run
from tests.support.trainings import configured, equal_weights, weights


class Killed(Exception):
    pass


def kill_at(step):
    def report(done, row):
        if done == step:
            raise Killed

    return report


def without_time(history):
    return [row._replace(seconds=0.0) for row in history]


@pytest.mark.parametrize(("dropout", "optimizer"), [(0.0, "adamw"), (0.2, "adamw"), (0.0, "soap")])
def test_resumed_equals_uninterrupted(tmp_path, dropout, optimizer):
    config = configured(tmp_path, optimizer=optimizer)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, dropout=dropout))
    whole = train_from_config(config, tmp_path / "whole")
    for step in (25, 41):
        with pytest.raises(Killed):
            train_from_config(config, tmp_path / "parts", report=kill_at(step))
    parts = train_from_config(config, tmp_path / "parts")
    assert without_time(parts.history) == without_time(whole.history)
    assert equal_weights(weights(parts.path), weights(whole.path))


def test_where_tensors_lie_in_the_file_does_not_matter(tmp_path):
    """Nor does the length of what is written before them, which is another in every run."""
    config = configured(tmp_path, optimizer="soap", steps=40, batch_size=4, ema=0.0)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, n_features=8, n_rbf=4))
    whole = train_from_config(config, tmp_path / "whole")
    for n in range(8):
        folder = tmp_path / f"parts-{n}"
        with pytest.raises(Killed):
            train_from_config(config, folder, report=kill_at(12))
        state = read_tensors(folder / "state.safetensors", "training state")
        header = {**state.header, "padding": 8 * n * "x"}
        write_tensors(folder / "state.safetensors", state.tensors, "training state", header)
        parts = train_from_config(config, folder)
        assert without_time(parts.history) == without_time(whole.history)
        assert equal_weights(weights(parts.path), weights(whole.path))


def test_kill_9_and_again(tmp_path):
    config = write_run(tmp_path)
    toml = config.read_text().replace("steps = 60", "steps = 150")
    config.write_text(toml)
    command = [sys.executable, "-m", "schnet_ase", "train", str(config), "--output"]
    process = subprocess.Popen([*command, str(tmp_path / "killed")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "state.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (tmp_path / "killed" / "state.safetensors").exists()
    killed = train_from_config(load_config(config), tmp_path / "killed")
    whole = train_from_config(load_config(config), tmp_path / "whole")
    assert killed.history[-1].step == 150
    assert equal_weights(weights(killed.path), weights(whole.path))


def test_a_finished_run_is_not_repeated(tmp_path):
    config = configured(tmp_path)
    first = train_from_config(config, tmp_path / "run")
    steps = []
    again = train_from_config(config, tmp_path / "run", report=lambda step, row: steps.append(step))
    assert steps == [60]
    assert again.history == first.history


def test_other_configuration_in_the_folder_is_refused(tmp_path):
    train_from_config(configured(tmp_path), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"other training\.learning_rate"):
        train_from_config(configured(tmp_path, learning_rate=1e-3), tmp_path / "run")


def test_other_labels_of_the_same_file_are_refused(tmp_path):
    config = configured(tmp_path)
    train_from_config(config, tmp_path / "run")
    for changed, said in (
        ({"energy_unit": "kcal/mol"}, "data_units"),
        ({"force_unit": "meV/Å"}, "data_units"),
        ({"energy_key": "energy"}, "energy_key"),
    ):
        other = dataclasses.replace(config, data=dataclasses.replace(config.data, **changed))
        with pytest.raises(TrainingError, match=f"other {said}"):
            train_from_config(other, tmp_path / "run")


def test_two_processes_in_one_folder(tmp_path):
    config = configured(tmp_path)

    def start_another(step, row):
        if step == 5:
            with pytest.raises(TrainingError, match="another process trains here"):
                train_from_config(config, tmp_path / "run")

    train_from_config(config, tmp_path / "run", report=start_another)
