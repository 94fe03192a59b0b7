"""Folds on a Ray cluster: the entry that processes of this machine make, and every mistake in one line."""

import importlib.util
import json
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from schnet_ase import load_model
from schnet_ase.errors import TrainingError
from schnet_ase.training import crossval, load_config, ray_folds
from schnet_ase.training.folds import FoldTask
from tests.frames import TOML, write_run

SMALL = TOML.replace("folds = 4", "folds = 2").replace("calibration = 10", "calibration = 0")
RUN = """
import json
import sys
from pathlib import Path
import torch
from schnet_ase.errors import TrainingError
from schnet_ase.training import crossval, load_config

torch.set_num_threads(1)
folder, reports = Path(sys.argv[1]), []

def run(config, name):
    crossval(load_config(folder / config), folder / name, folder / f"models-{name}", workers=2, executor="ray",
             report=reports.append)

run("run.toml", "run")
found = [(p.fold, p.row.step) for p in reports if p.row is not None]
try:
    run("bad.toml", "bad")
except TrainingError as error:
    print(json.dumps([found, str(error)]))
"""


@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray is not installed: pip install 'schnet_ase[ray]'")
def test_two_folds_on_a_cluster_of_this_machine(tmp_path):
    config = write_run(tmp_path, SMALL)
    bad = SMALL.replace("learning_rate = 5e-3", 'learning_rate = 1e30\nschedule = "report"')
    (tmp_path / "bad.toml").write_text(bad)
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path)], cwd=Path(__file__).parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    reports, error = json.loads(done.stdout.splitlines()[-1])
    assert sorted(map(tuple, reports)) == [(fold, step) for fold in (1, 2) for step in (10, 20, 30, 40, 50, 60)]
    assert "lower training.learning_rate" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "models-bad" / "ethanol-emt").exists()

    card = crossval(load_config(config), tmp_path / "here", tmp_path / "models", workers=1)
    for member in card.members:
        a, b = (load_model(tmp_path / m / "ethanol-emt" / member.file).state_dict() for m in ("models", "models-run"))
        assert all(torch.equal(a[name], b[name]) for name in a)


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
    monkeypatch.setattr(ray_folds, "check_ray", lambda: (ray, SimpleNamespace()))
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
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    fake.init = lambda *a, **k: pytest.fail("Ray would wait for it without end")
    task = FoldTask(load_config(write_run(tmp_path, SMALL)), 0, None, tmp_path / "run", None, "cpu")
    with pytest.raises(TrainingError, match=f"no Ray cluster at {scheme}127.0.0.1:{port} .*refused"):
        ray_folds.train_on_ray([task], 1, 1, f"{scheme}127.0.0.1:{port}", print)


def test_a_folder_that_the_machines_do_not_share(tmp_path, fake, monkeypatch):
    """The tasks are done, and here is nothing of them."""
    fake.remote = lambda **k: lambda f: SimpleNamespace(remote=lambda *a: "task")
    fake.wait = lambda pending, **k: (pending, [])
    fake.get = lambda task: None
    queue = SimpleNamespace(qsize=lambda: 0)
    monkeypatch.setattr(ray_folds, "check_ray", lambda: (fake, SimpleNamespace(Queue=lambda **k: queue)))
    task = FoldTask(load_config(write_run(tmp_path, SMALL)), 0, None, tmp_path / "run", None, "cpu")
    with pytest.raises(TrainingError, match="must share the run's folder"):
        ray_folds.train_on_ray([task], 1, 1, "auto", print)
