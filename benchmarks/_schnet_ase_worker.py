"""Our side of the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from _worker import CUTOFF, ENERGY_WEIGHT, FORCE_WEIGHT, SKIN, Dynamics, Job, read_atoms, read_job, serve, timed_steps
from ase.io import read
from torch import Tensor

from schnet_ase import SchNet, SchNetCalculator, SchNetEnsembleCalculator
from schnet_ase.data import Frame
from schnet_ase.data.batches import Batch, collate, make_example
from schnet_ase.export.schnetpack import from_schnetpack
from schnet_ase.geometry.graph import Pairs
from schnet_ase.geometry.system import geometry
from schnet_ase.networks import schnet
from schnet_ase.training.step.compiled import compiled_step
from schnet_ase.training.step.loss import LossTerms, eager_step


def read_potential(file: Path) -> SchNet:
    """A network from the state dict that the other side wrote."""
    with np.load(file) as arrays:
        return from_schnetpack(dict(arrays), readout_activation="ssp")


def md(job: Job, models: list[SchNet]) -> None:
    """Velocity Verlet with one network, or with several and their spread."""
    atoms = read_atoms(job)
    options: dict[str, Any] = {"device": "cpu", "engine": job.way, "skin": SKIN, "threads": job.threads}
    single = len(models) == 1
    atoms.calc = SchNetCalculator(models[0], **options) if single else SchNetEnsembleCalculator(models, **options)
    dynamics = Dynamics(atoms)

    def forces(file: str) -> dict[str, Any]:
        atoms.get_forces()
        results = atoms.calc.results
        one = results if single else {key: results[f"{key}_ensemble"][0] for key in ("energy", "forces")}
        np.save(file, one["forces"])
        return {"energy": float(one["energy"]), "engine": atoms.calc.engine.name}

    def run(steps: int) -> dict[str, Any]:
        builds = atoms.calc._evaluator.neighbors.builds
        seconds = dynamics.run(steps)
        return {"seconds": seconds, "lists": atoms.calc._evaluator.neighbors.builds - builds}

    serve({"forces": forces, "run": run})


def train(job: Job, models: list[SchNet]) -> None:
    """Training steps on one batch, with the optimizer of `schnet_ase.training`."""
    (model,) = models
    frames = [Frame(geometry(f), f.get_potential_energy(), f.get_forces()) for f in read(job.frames, ":")]
    batch = collate([make_example(frame, CUTOFF) for frame in frames])
    if job.way == "full":
        schnet.cfconv = cfconv_one_way
        batch = in_both_directions(batch)
    make_step = compiled_step if job.way == "compiled" else eager_step
    loss_and_gradient = make_step(model, LossTerms(ENERGY_WEIGHT, FORCE_WEIGHT))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
    model.train()

    def step() -> None:
        loss_and_gradient(batch)
        optimizer.step()

    def gradient(file: str) -> dict[str, Any]:
        loss = loss_and_gradient(batch)
        arrays: dict[str, Any] = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
        np.savez(file, **arrays)
        return {"loss": loss.item()}

    serve({"gradient": gradient, "run": lambda steps: {"seconds": timed_steps(step, steps)}})


def cfconv_one_way(x: Tensor, filters: Tensor, pairs: Pairs) -> Tensor:
    """The convolution of a list with each pair in both directions, as most programs have it."""
    return torch.zeros_like(x).index_add(0, pairs.first, x[pairs.second] * filters)


def in_both_directions(batch: Batch) -> Batch:
    """The same batch of molecules with each pair twice."""
    first, second = batch.graph.pairs
    pairs = Pairs(torch.cat([first, second]), torch.cat([second, first]))
    return batch._replace(graph=batch.graph._replace(pairs=pairs))


def main() -> None:
    job = read_job()
    torch.set_num_threads(job.threads)
    models = [read_potential(Path(job.weights) / f"{member}.npz") for member in range(job.members)]
    {"md": md, "train": train}[job.task](job, models)


if __name__ == "__main__":
    main()
