"""SchNetPack's side of the benchmarks; run by the Python of its own environment."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import schnetpack as spk
import torch
from _worker import (
    CUTOFF,
    ENERGY_WEIGHT,
    FORCE_WEIGHT,
    N_INTERACTIONS,
    N_RBF,
    SKIN,
    Dynamics,
    Job,
    read_atoms,
    read_job,
    serve,
    timed_steps,
)
from ase.io import read
from schnetpack.interfaces import AtomsConverter, SpkCalculator
from schnetpack.model import NeuralNetworkPotential
from schnetpack.nn import shifted_softplus
from schnetpack.transform import MatScipyNeighborList, SkinNeighborList

WEAK = 1e-3  # forces of an untrained network would heat the dynamics by thousands of kelvin


def potential(job: Job, member: int) -> NeuralNetworkPotential:
    """An untrained network as SchNetPack initializes it; of the paper's readout, with the shifted softplus."""
    torch.manual_seed(member)
    representation = spk.representation.SchNet(
        n_atom_basis=job.n_features,
        n_interactions=N_INTERACTIONS,
        radial_basis=spk.nn.GaussianRBF(n_rbf=N_RBF, cutoff=CUTOFF),
        cutoff_fn=spk.nn.CosineCutoff(CUTOFF),
    )
    readout = spk.atomistic.Atomwise(n_in=job.n_features, output_key="energy", activation=shifted_softplus)
    model = NeuralNetworkPotential(
        representation,
        input_modules=[spk.atomistic.PairwiseDistances()],
        output_modules=[readout, spk.atomistic.Forces()],
    )
    if job.task == "md":
        with torch.no_grad():
            readout.outnet[1].weight.mul_(WEAK)
    return model


def write_arrays(file: str, tensors: dict[str, torch.Tensor]) -> None:
    """Named arrays to an ``.npz`` file, which our side reads without unpickling anything."""
    np.savez(file, **{name: tensor.detach().numpy() for name, tensor in tensors.items()})


def md(job: Job, model: NeuralNetworkPotential) -> None:
    """Velocity Verlet with `SpkCalculator` and a matscipy list: made each step, or with a skin as wide as ours."""
    file = os.path.join(job.weights, "schnetpack.pt")
    torch.save(model, file)
    atoms = read_atoms(job)
    neighbors = MatScipyNeighborList(cutoff=CUTOFF)
    if job.way == "skin":
        neighbors = SkinNeighborList(neighbors, cutoff_skin=SKIN)
    atoms.calc = SpkCalculator(file, neighbor_list=neighbors, energy_unit="eV")
    dynamics = Dynamics(atoms)

    def forces(file: str) -> dict[str, Any]:
        np.save(file, atoms.get_forces())
        return {"energy": atoms.get_potential_energy(), "engine": "PyTorch"}

    def run(steps: int) -> dict[str, Any]:
        return {"seconds": dynamics.run(steps)}

    serve({"forces": forces, "run": run})


def train(job: Job, model: NeuralNetworkPotential) -> None:
    """Training steps on one batch, made once, without loader and logging."""
    frames = read(job.frames, ":")
    batch = AtomsConverter(neighbor_list=MatScipyNeighborList(cutoff=CUTOFF))([f.copy() for f in frames])
    energy = torch.tensor([f.get_potential_energy() for f in frames], dtype=torch.float32)
    forces = torch.tensor(np.concatenate([f.get_forces() for f in frames]), dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    model.train()

    def loss_and_gradient() -> torch.Tensor:
        optimizer.zero_grad()
        inputs = dict(batch)
        inputs[spk.properties.R] = batch[spk.properties.R].clone()
        predicted = model(inputs)
        loss = ENERGY_WEIGHT * ((predicted["energy"] - energy) ** 2).mean()
        loss = loss + FORCE_WEIGHT * ((predicted["forces"] - forces) ** 2).sum(dim=1).mean()
        loss.backward()
        return loss

    def step() -> None:
        loss_and_gradient()
        optimizer.step()

    def gradient(file: str) -> dict[str, Any]:
        loss = loss_and_gradient()
        write_arrays(file, model.state_dict() | {name: p.grad for name, p in model.named_parameters()})
        return {"loss": loss.item()}

    serve({"gradient": gradient, "run": lambda steps: {"seconds": timed_steps(step, steps)}})


def main() -> None:
    job = read_job()
    torch.set_num_threads(job.threads)
    for member in range(job.members):
        write_arrays(os.path.join(job.weights, f"{member}.npz"), potential(job, member).state_dict())
    {"md": md, "train": train}[job.task](job, potential(job, 0))


if __name__ == "__main__":
    main()
