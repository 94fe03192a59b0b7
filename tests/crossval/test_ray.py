"""Folds and trials on a Ray cluster: what is trained here, whatever is killed, and every mistake in one line."""

import dataclasses
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from schnet_ase import load_model
from schnet_ase.crossval import ray_cluster, ray_folds
from schnet_ase.crossval.folds import FoldTask
from schnet_ase.errors import TrainingError
from schnet_ase.training import crossval, load_config, tune
from tests.support.frames import TOML, write_run
from tests.support.paths import ROOT

with_ray = pytest.mark.skipif(
    not importlib.util.find_spec("ray"), reason="Ray is not installed: pip install 'schnet_ase[ray]'"
)
# Else a token is made, and one that lies at home decides what the clusters of the tests ask for.
ENVIRONMENT = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
SMALL = TOML.replace("folds = 4", "folds = 2").replace("calibration = 10", "calibration = 0")


def python(script, *arguments):
    """A process of its own, as Ray wants it: its exit status, and what its last line says as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Two folds trained by this process: their folder and their card."""
    folder = tmp_path_factory.mktemp("here")
    return folder, crossval(load_config(write_run(folder, SMALL)), folder / "run", folder / "models", workers=1)


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster that is there."""
    command = ["start", "--head", "--block", "--num-cpus", "2", "--port", str(port := free_port())]
    with subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", *command, "--include-dashboard=false"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            said = []
            for line in process.stdout:
                said.append(line)
                if "Ray runtime started" in line:
                    break
            else:
                pytest.fail("".join(said))
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()  # and with it all of the cluster


def assert_same_weights(card, models, others):
    for member in card.members:
        a, b = (load_model(folder / "ethanol-emt" / member.file).state_dict() for folder in (models, others))
        assert all(torch.equal(a[name], b[name]) for name in a)


RUN = """
import json
import sys
from pathlib import Path
import torch
from schnet_ase.errors import TrainingError
from schnet_ase.training import crossval, load_config

torch.set_num_threads(1)
folder, output, reports = Path(sys.argv[1]), Path(sys.argv[2]), []

def run(config, name, **where):
    crossval(load_config(folder / config), output / name, output / f"models-{name}", executor="ray", **where,
             report=reports.append)

run("run.toml", "run", workers=2)
found = [(p.fold, p.row.step) for p in reports if p.row is not None]
try:
    run("bad.toml", "bad", ray_address=sys.argv[3])
except TrainingError as error:
    print(json.dumps([found, str(error)]))
"""


@with_ray
def test_two_folds_on_a_cluster_of_this_machine(here, cluster, tmp_path):
    folder, card = here
    bad = SMALL.replace("learning_rate = 5e-3", 'learning_rate = 1e30\nschedule = "report"')
    (folder / "bad.toml").write_text(bad)
    _, (reports, error) = python(RUN, folder, tmp_path, cluster)
    assert sorted(map(tuple, reports)) == [(fold, step) for fold in (1, 2) for step in (10, 20, 30, 40, 50, 60)]
    assert "lower training.learning_rate" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "models-bad" / "ethanol-emt").exists()
    assert_same_weights(card, folder / "models", tmp_path / "models-run")


KILLED_WORKER = """
import json
import os
import signal
import sys
from pathlib import Path
from schnet_ase.crossval import ray_folds
from schnet_ase.training import crossval, load_config

folder, output, address, reports = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], []
train = ray_folds._train

def killed_once(task, send):
    def report(progress):
        send(progress)
        if progress.row is not None and (progress.fold, progress.step) == (1, 20) and not marker.exists():
            marker.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)

    marker = output / "killed"
    train(task, report)

ray_folds._train = killed_once
crossval(load_config(folder / "run.toml"), output / "run", output / "models", executor="ray", ray_address=address,
         report=reports.append)
print(json.dumps([(p.fold, p.row.step) for p in reports if p.row is not None]))
"""


@with_ray
def test_a_worker_killed_in_the_middle_of_a_fold_on_a_cluster_that_is_there(here, cluster, tmp_path):
    """Ray starts the fold again, and it goes on from its checkpoint as if nothing had been."""
    folder, card = here
    _, reports = python(KILLED_WORKER, folder, tmp_path, cluster)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "killed").read_text()), 0)
    assert [step for fold, step in reports if fold == 1] == [10, 20, 20, 30, 40, 50, 60]
    assert [step for fold, step in reports if fold == 2] == [10, 20, 30, 40, 50, 60]
    assert_same_weights(card, folder / "models", tmp_path / "models")


SEARCH = (
    SMALL
    + """
[tune]
trials = 3
training.learning_rate = { low = 1e-4, high = 1e-2, log = true }
"""
)
TUNE = """
import json
import os
import signal
import sys
from pathlib import Path
from schnet_ase.training import load_config, tune

folder, address = Path(sys.argv[1]), sys.argv[2]
ended, validations = [], []

def report(progress):
    if progress.row is None:
        return
    validations.append((progress.trial, progress.step))
    if address == "killed" and ended and progress.trial == 2 and progress.step == 20:
        print(json.dumps([ended, validations]), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

own = {"workers": 2} if address == "killed" else {"ray_address": address}
tune(load_config(folder / "run.toml"), folder / "run", executor="ray", **own, report=report,
     finished=lambda trial: ended.append(trial.number))
print(json.dumps([ended, validations]))
"""


@with_ray
def test_a_search_killed_on_one_cluster_goes_on_on_another(cluster, tmp_path):
    """No trial is lost or repeated, and those that follow from the seed alone are the ones that are trained here."""
    config = load_config(write_run(tmp_path, SEARCH))
    status, (before, _) = python(TUNE, tmp_path, "killed")
    assert status == -signal.SIGKILL
    status, (after, validations) = python(TUNE, tmp_path, cluster)
    assert status == 0
    assert sorted(before + after) == [0, 1, 2]
    assert before
    assert {trial for trial, _ in validations} == {*after}
    assert min(step for trial, step in validations if trial == 2) >= 20
    again, alone = tune(config, tmp_path / "run"), tune(config, tmp_path / "alone")
    assert [(t.values, t.best.validation_loss) for t in again.trials] == [
        (t.values, t.best.validation_loss) for t in alone.trials
    ]


@pytest.fixture
def run(tmp_path):
    """Cross-validation that must not get as far as reading data."""
    config = load_config(write_run(tmp_path, SMALL))
    Path(config.data.file).unlink()

    def run(**arguments):
        with pytest.raises(TrainingError) as caught:
            crossval(config, tmp_path / "run", tmp_path / "models", **arguments)
        return str(caught.value)

    return run


def test_without_ray(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'schnet_ase[ray]'" in run(executor="ray")


def test_an_address_that_is_of_no_use(run):
    assert "for executor = 'ray' alone" in run(ray_address="auto")
    assert "without a number of workers" in run(ray_address="auto", executor="ray", workers=2)


@pytest.fixture
def fake(monkeypatch):
    """A Ray that is there and does as the test says."""
    ray = SimpleNamespace(init=lambda *a, **k: None, shutdown=lambda: None, remote=lambda **k: lambda f: f)
    monkeypatch.setattr(ray_cluster, "check_ray", lambda: (ray, SimpleNamespace()))
    return ray


@pytest.mark.parametrize(("address", "where"), [(None, "on this machine"), ("auto", "at auto")])
def test_no_cluster(tmp_path, fake, address, where):
    def refuse(*arguments, **options):
        raise ConnectionError("Could not find any running Ray instance.\nMore of it.")

    fake.init = refuse
    config = load_config(write_run(tmp_path, SMALL))
    task = FoldTask(config, 0, None, tmp_path / "run", None, "cpu")
    with pytest.raises(TrainingError, match=f"no Ray cluster {where} .*start one or correct --ray-address") as caught:
        ray_folds.train_on_ray([task], 1, 1, address, print)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_nobody_at_the_address(tmp_path, fake, scheme):
    port = free_port()
    fake.init = lambda *a, **k: pytest.fail("Ray would wait for it without end")
    task = FoldTask(load_config(write_run(tmp_path, SMALL)), 0, None, tmp_path / "run", None, "cpu")
    with pytest.raises(TrainingError, match=f"no Ray cluster at {scheme}127.0.0.1:{port} .*refused"):
        ray_folds.train_on_ray([task], 1, 1, f"{scheme}127.0.0.1:{port}", print)


def test_paths_are_absolute_where_tasks_run(tmp_path, monkeypatch):
    config = load_config(write_run(tmp_path, SMALL))
    monkeypatch.chdir(tmp_path)
    for file, expected in (("ethanol.extxyz", str(tmp_path / "ethanol.extxyz")), ("qm9pack:", "qm9pack:")):
        data = dataclasses.replace(config.data, file=file, exclude="excluded.txt")
        task = FoldTask(dataclasses.replace(config, data=data), 0, None, Path("run"), Path("earlier"), "cpu")
        task = ray_folds._everywhere(task)
        assert task.config.data.file == expected
        assert task.config.data.exclude == str(tmp_path / "excluded.txt")
        assert (task.run, task.initial) == (tmp_path / "run", tmp_path / "earlier")


def test_a_folder_that_the_machines_do_not_share(tmp_path, fake, monkeypatch):
    """The tasks are done, and here is nothing of them."""
    fake.remote = lambda **k: lambda f: SimpleNamespace(remote=lambda *a: "task")
    fake.wait = lambda pending, **k: (pending, [])
    fake.get = lambda task: None
    queue = SimpleNamespace(qsize=lambda: 0)
    monkeypatch.setattr(ray_cluster, "check_ray", lambda: (fake, SimpleNamespace(Queue=lambda **k: queue)))
    task = FoldTask(load_config(write_run(tmp_path, SMALL)), 0, None, tmp_path / "run", None, "cpu")
    with pytest.raises(TrainingError, match="must share the run's folder"):
        ray_folds.train_on_ray([task], 1, 1, "auto", print)
