"""A training that is interrupted loses nothing, says where its state is, and goes on with the same numbers."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from schnet_ase.errors import RegistryError
from schnet_ase.registry.checkpoint import read_tensors
from schnet_ase.registry.loading import load_model
from schnet_ase.training import crossval, load_config, train_from_config
from schnet_ase.training.stopping import Stopped, stop_on_signals
from tests.support.frames import TOML, write_run

SMALL = TOML.replace("steps = 60", "steps = 30\ncompile = false")


def raised_at(number, step):
    """A report that sends this process a signal once `step` steps are done."""

    def report(done, row):
        if done == step:
            signal.raise_signal(number)

    return report


def same(a, b):
    """Weights, losses and errors, to the last bit; times are not the same."""
    ours, theirs = a.model.state_dict(), b.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert [r._replace(seconds=0.0) for r in a.history] == [r._replace(seconds=0.0) for r in b.history]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    config = load_config(write_run(folder, SMALL.replace("n_rbf = 12", "n_rbf = 12\ndropout = 0.1")))
    return config, train_from_config(config, folder / "run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [7, 13])
def test_stopped_between_validations_and_resumed(whole, tmp_path, caplog, number, step):
    config, uninterrupted = whole
    folder = tmp_path / "run"
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=rf"^stopped at step {step}; state in {folder}; the same command resumes$"):
        train_from_config(config, folder, report=raised_at(number, step))
    assert signal.getsignal(number) is before
    header = read_tensors(folder / "state.safetensors", "training state").header
    assert header["step"] == step
    assert len(header["losses"]) == step % 10
    steps = []
    with caplog.at_level("INFO", "schnet_ase"):
        result = train_from_config(config, folder, report=lambda done, row: steps.append(done))
    assert f"{folder}: resumes at step {step} of 30" in caplog.messages
    assert steps == list(range(step, 31))
    same(result, uninterrupted)


def test_a_state_is_written_every_minute(whole, tmp_path, monkeypatch):
    """So that what ends a process at once, kill -9 or a power cut, costs a minute at most."""
    config, uninterrupted = whole
    monkeypatch.setattr("schnet_ase.training.trainer.SECONDS_BETWEEN_STATES", 0.0)

    class Killed(Exception):
        pass

    def kill(done, row):
        if done == 17:
            raise Killed

    with pytest.raises(Killed):
        train_from_config(config, tmp_path / "run", report=kill)
    assert read_tensors(tmp_path / "run" / "state.safetensors", "training state").header["step"] == 17
    same(train_from_config(config, tmp_path / "run"), uninterrupted)


def test_a_step_that_fails_keeps_those_before_it(whole, tmp_path, monkeypatch):
    config, uninterrupted = whole
    from schnet_ase.training import trainer

    collate, calls = trainer.Trainer._collate, []

    def full(self, indices):
        calls.append(None)
        if len(calls) == 6:
            raise MemoryError("no memory")
        return collate(self, indices)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_collate", full)
        with pytest.raises(MemoryError):
            train_from_config(config, tmp_path / "run")
    assert read_tensors(tmp_path / "run" / "state.safetensors", "training state").header["step"] == 5
    same(train_from_config(config, tmp_path / "run"), uninterrupted)


def test_a_start_that_fails_leaves_no_state(tmp_path, monkeypatch):
    """A configuration that cannot be trained with can be mended in the same folder."""
    from schnet_ase.training import trainer

    def broken(self, indices):
        raise ValueError("broken")

    monkeypatch.setattr(trainer.Trainer, "_collate", broken)
    with pytest.raises(ValueError, match="broken"):
        train_from_config(load_config(write_run(tmp_path, SMALL)), tmp_path / "run")
    assert not (tmp_path / "run" / "state.safetensors").exists()


def test_a_folder_without_a_model_yet_says_so(whole, tmp_path):
    config, _ = whole
    with pytest.raises(Stopped):
        train_from_config(config, tmp_path / "run", report=raised_at(signal.SIGINT, 3))
    with pytest.raises(RegistryError, match="run: no model yet, its training was stopped before the first validation"):
        load_model(tmp_path / "run")


def test_folds_in_one_process(tmp_path):
    config = load_config(write_run(tmp_path, SMALL))
    with pytest.raises(Stopped, match=r"stopped at step 4; state in .*run/fold-1; the same command resumes"):
        crossval(config, tmp_path / "run", tmp_path / "models", workers=1, report=lambda p: at(p, 1, 4))
    whole = crossval(config, tmp_path / "whole", tmp_path / "others", workers=1)
    again = crossval(config, tmp_path / "run", tmp_path / "models", workers=1)
    assert again.metrics == whole.metrics


def at(progress, fold, step):
    if (progress.fold, progress.step) == (fold, step):
        signal.raise_signal(signal.SIGINT)


def test_folds_side_by_side(tmp_path):
    from schnet_ase.crossval.folds import FoldTask
    from schnet_ase.crossval.gpu import train_together
    from schnet_ase.training.run import load_frames
    from schnet_ase.training.subsets import split_for_crossval

    config = load_config(write_run(tmp_path, SMALL))
    split = split_for_crossval(config, load_frames(config.data.file, config))

    def tasks(run):
        return [FoldTask(config, k, fold, tmp_path / run, None, "cpu") for k, fold in enumerate(split.folds[:2])]

    with pytest.raises(Stopped, match=r"stopped at step 4; states in .*run; the same command resumes"):
        train_together(tasks("run"), lambda p: at(p, 1, 4))
    for k in (1, 2):
        state = tmp_path / "run" / f"fold-{k}" / "state.safetensors"
        assert read_tensors(state, "training state").header["step"] == 4
    for one, other in zip(
        train_together(tasks("run"), lambda p: None), train_together(tasks("whole"), lambda p: None), strict=True
    ):
        same(one, other)


@pytest.mark.parametrize(("command", "number"), [("train", signal.SIGINT), ("crossval", signal.SIGTERM)])
def test_the_command_ends_with_130_and_says_where_the_state_is(tmp_path, command, number):
    toml = SMALL.replace("steps = 30", "steps = 100_000").replace("validate_every = 10", "validate_every = 100_000")
    path = write_run(tmp_path, toml.replace("folds = 4", "folds = 2").replace("calibration = 10", "calibration = 0"))
    run = tmp_path / "run"
    arguments = [sys.executable, "-m", "schnet_ase", command, str(path), "--output", str(run)]
    arguments += ["--models", str(tmp_path / "models"), *(["--workers", "2"] if command == "crossval" else [])]
    folders = [run / "fold-1", run / "fold-2"] if command == "crossval" else [run]
    code = (
        "import schnet_ase.training.trainer as t; t.SECONDS_BETWEEN_STATES = 0.0\n"
        "import sys; from schnet_ase.cli import main\n"
        "if __name__ == '__main__': main()\n"
    )
    if command == "train":  # states before the signal show that it trains
        arguments[1:3] = ["-c", code]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        locks = [folder / ("state.safetensors" if command == "train" else ".lock") for folder in folders]
        while not all(lock.exists() for lock in locks):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        if command == "crossval":
            time.sleep(3.0)
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "schnet-ase: stopped" in err
    assert str(run) in err
    assert "the same command resumes" in err
    for folder in folders:
        if (folder / "state.safetensors").exists():
            assert read_tensors(folder / "state.safetensors", "training state").header["step"] > 0


def test_a_second_ctrl_c_does_not_wait():
    with stop_on_signals() as asked:
        signal.raise_signal(signal.SIGTERM)
        assert asked()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_ignored_signals_stay_ignored_and_other_threads_are_left_alone():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_on_signals() as asked:
            os.kill(os.getpid(), signal.SIGINT)
            assert not asked()
    finally:
        signal.signal(signal.SIGINT, before)
    found = []

    def elsewhere():
        with stop_on_signals() as asked:
            found.append(asked())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [False]
