"""Several processes train as one does: the same gradient, the same weights to rounding, and they end together."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from schnet_ase import load_model
from schnet_ase.registry.checkpoint import read_tensors
from schnet_ase.training import load_config, train_from_config
from schnet_ase.training.processes import Processes
from tests.support.frames import TOML, write_ethanol, write_run
from tests.support.paths import ROOT

# Not a power of two, so that no mistake of a weight is hidden; both shares of 5 and 4 are not empty.
# The eigenbases of SOAP make more of rounding than Adam's division does.
TRAIN = TOML.replace("steps = 60", 'steps = 30\noptimizer = "adamw"').replace('test = "test.extxyz"\n', "")


def torchrun(n, *arguments, **variables):
    """Start `n` processes on this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}", *arguments]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")]),
        **variables,
    }
    pipe = subprocess.PIPE
    return subprocess.Popen([str(a) for a in command], cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def lines_of_ours(text):
    return [line for line in text.splitlines() if line.startswith("schnet-ase: ")]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("n", [7, 8, 12])
def test_shares_are_all_and_even(n, size):
    shares = [np.arange(n)[Processes(rank, size).share(range(n))] for rank in range(size)]
    assert np.concatenate(shares).tolist() == list(range(n))
    lengths = {len(share) for share in shares}
    assert max(lengths) - min(lengths) <= 1


GRADIENTS = """
import sys
import torch
from schnet_ase import SchNet, SchNetConfig
from schnet_ase.data.batches import collate, make_example
from schnet_ase.training.step.compiled import compiled_step
from schnet_ase.training.step.loss import LossTerms, eager_step
from schnet_ase.training.processes import torchrun_processes
from tests.training.test_processes import labelled, small_model

found = {}
with torchrun_processes("cpu") as processes:
    for kind in ("float32", "float64", "energy"):
        for n in (4, 5):
            examples = [make_example(f, 4.0) for f in labelled(n, kind)]
            model = small_model(torch.float64 if kind == "float64" else torch.float32)
            own = examples[processes.share(examples)]
            step = eager_step(model, LossTerms(0.3, 0.0 if kind == "energy" else 1.0))
            parameters = list(model.parameters())
            loss = processes.mean_gradient(lambda: step(collate(own)), len(own) / n, parameters)
            found[f"{kind} {n}"] = (loss, [p.grad for p in parameters])
    everybodys = processes.gather(lambda: found)
    if processes.rank == 0:
        torch.save(everybodys, sys.argv[1])
"""


def small_model(dtype):
    from schnet_ase import SchNet, SchNetConfig

    torch.manual_seed(1)
    model = SchNet(SchNetConfig(n_features=16, n_interactions=2, n_rbf=12, cutoff=4.0, gamma=None, envelope="cosine"))
    model.scale.fill_(0.7)
    return model.to(dtype)


def labelled(n, kind):
    """Molecules of several sizes: a mean over force components is not one over the shares' means of them."""
    from _systems import molecules

    rng = np.random.default_rng(2)
    for frame in molecules(n, seed=3):
        shape = frame.geometry.positions.shape
        yield frame._replace(energy=float(rng.normal()), forces=None if kind == "energy" else rng.normal(size=shape))


def test_two_processes_give_the_gradient_of_one(tmp_path):
    from schnet_ase.data.batches import collate, make_example
    from schnet_ase.training.step.loss import LossTerms, eager_step

    script = tmp_path / "gradients.py"
    script.write_text(GRADIENTS)
    process = torchrun(2, script, tmp_path / "found.pt")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    first, second = torch.load(tmp_path / "found.pt", weights_only=True)
    assert len(first) == 6
    for case, (loss, gradient) in first.items():
        kind, n = case.split()
        model = small_model(torch.float64 if kind == "float64" else torch.float32)
        batch = collate([make_example(f, 4.0) for f in labelled(int(n), kind)])
        whole_loss = eager_step(model, LossTerms(0.3, 0.0 if kind == "energy" else 1.0))(batch).item()
        whole = torch.cat(
            [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in model.parameters()]
        )
        parts = torch.cat([g.flatten() for g in gradient])
        tolerance = 1e-12 if kind == "float64" else 1e-6
        assert torch.linalg.vector_norm(parts - whole) <= tolerance * torch.linalg.vector_norm(whole), case
        assert loss == pytest.approx(whole_loss, rel=tolerance)
        assert loss == second[case][0], "to the last bit in every process"
        assert all(torch.equal(a, b) for a, b in zip(gradient, second[case][1], strict=True))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run of one process: its configuration and its result."""
    folder = tmp_path_factory.mktemp("alone")
    config = write_run(folder, TRAIN)
    return config, train_from_config(load_config(config), folder / "run")


def assert_the_same(folder, alone):
    """Weights and history are those of one process, to rounding; Adam's division makes rounding larger."""
    _, expected = alone
    state = read_tensors(folder / "state.safetensors", "training state")
    rows = state.header["history"]
    assert [row["step"] for row in rows] == [row.step for row in expected.history]
    for row, other in zip(rows, expected.history, strict=True):
        assert row["validation_loss"] == pytest.approx(other.validation_loss, rel=1e-4)
        assert row["training_loss"] == pytest.approx(other.training_loss, rel=1e-4)
    found = load_model(folder / "best.safetensors").state_dict()
    for name, tensor in expected.model.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=2e-4)


def test_two_processes_train_the_model_of_one(tmp_path, alone):
    config, _ = alone
    process = torchrun(2, "-m", "schnet_ase", "train", config, "--output", tmp_path / "run")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.count("wrote ") == 1
    assert_the_same(tmp_path / "run", alone)
    files = {f.name for f in (tmp_path / "run").iterdir()}
    assert files <= {".lock", "best.safetensors", "state.safetensors", "metrics.csv", "learning_curve.png"}


SLOWLY = """
import sys
import time
from schnet_ase.cli import main
from schnet_ase.training import trainer

real = trainer.collate
trainer.collate = lambda examples: time.sleep(0.3) or real(examples)  # so that it can be killed on its way
main()
"""


def test_a_killed_process_and_another_number_of_them(tmp_path, alone):
    """All end, the checkpoint is good, and one process goes on with the numbers of an uninterrupted one."""
    config, expected = alone
    script = tmp_path / "slowly.py"
    script.write_text(SLOWLY)
    state = tmp_path / "run" / "state.safetensors"
    process = torchrun(2, script, "train", config, "--output", tmp_path / "run")
    try:
        deadline = time.monotonic() + 240
        while not state.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(workers[-1]), signal.SIGKILL)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode != 0
    assert read_tensors(state, "training state").header["step"] < 30
    resumed = train_from_config(load_config(config), tmp_path / "run")
    assert resumed.history[-1].step == 30
    assert_the_same(tmp_path / "run", alone)


OTHERS = """
import os
import re
import sys
from schnet_ase.cli import main

config, output, *roots = sys.argv[1:]
root = roots[int(os.environ["RANK"])]
sys.argv = ["schnet-ase", "train", config, "--output", output, "--data-root", root]
main()
"""


def failure(process):
    """The one line of ours that processes end with."""
    _, err = process.communicate(timeout=300)
    assert process.returncode != 0
    (line,) = lines_of_ours(err)
    return line


def test_what_fails_in_one_process_ends_all_in_one_line(tmp_path):
    config = write_run(tmp_path, TRAIN)
    script = tmp_path / "others.py"
    script.write_text(OTHERS)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    write_ethanol(tmp_path / "other" / "ethanol.extxyz", seed=5)
    for folder, message in (
        ("empty", "process 1 of 2: .* there is no file"),
        ("other", "process 1 of 2 has other data_sha256"),
    ):
        line = failure(torchrun(2, script, config, tmp_path / "run", tmp_path, tmp_path / folder))
        assert re.search(message, line)


def test_what_all_processes_refuse_is_said_once(tmp_path):
    write_run(tmp_path, TRAIN)
    few = tmp_path / "few.toml"
    few.write_text(TRAIN.replace("batch_size = 5", "batch_size = 1"))
    command = ("-m", "schnet_ase", "train", few, "--output", tmp_path / "run")
    assert "a batch of 1 frames for 2 processes; start fewer" in failure(torchrun(2, *command))
    few.write_text(TRAIN.replace("learning_rate = 5e-3", 'learning_rate = 1e30\nschedule = "report"'))
    assert "lower training.learning_rate" in failure(torchrun(2, *command))
    assert "start it without torchrun" in failure(torchrun(2, "-m", "schnet_ase", "crossval", few))
