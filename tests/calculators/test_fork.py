"""A forked process after its parent has computed: PyTorch's threads are not there, and nothing waits for them."""

import json
import multiprocessing
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = """
import json, multiprocessing
import torch
from ase.build import bulk
from schnet_ase import SchNet, SchNetCalculator, SchNetConfig, SchNetEnsembleCalculator

torch.set_num_threads(2)
models = []
for seed in range(2):
    torch.manual_seed(seed)
    models.append(SchNet(SchNetConfig.md()).eval())
atoms = bulk("C", cubic=True) * (2, 2, 1)
atoms.rattle(0.05, seed=0)
single = SchNetCalculator(models[0], engine="autograd", dtype="float64")
ensemble = SchNetEnsembleCalculator(models, engine="autograd", dtype="float64", threads=2)

def forces(task):
    calculators = {
        "single": lambda: single,
        "ensemble": lambda: ensemble,
        "made there": lambda: SchNetEnsembleCalculator(models, engine="autograd", dtype="float64", threads=2),
        "compiled": lambda: SchNetEnsembleCalculator(models, engine="compiled", dtype="float64", threads=2),
    }
    calculator = calculators[task]()
    calculator.reset()
    return calculator.get_forces(atoms).tolist()

ours = {task: forces(task) for task in ("single", "ensemble")}
tasks = ("single", "ensemble", "made there", "compiled", "single")
with multiprocessing.get_context("fork").Pool(2) as pool:
    theirs = pool.map(forces, tasks, chunksize=1)
assert torch.get_num_threads() == 2
print(json.dumps([[ours["single" if task == "single" else "ensemble"] for task in tasks], theirs]))
"""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="nothing forks here")
def test_a_pool_computes_what_its_parent_does():
    program = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM]
    done = subprocess.run(program, timeout=240, check=True, capture_output=True, text=True)
    ours, theirs = (np.array(forces) for forces in json.loads(done.stdout))
    np.testing.assert_allclose(theirs, ours, rtol=0.0, atol=1e-6)
