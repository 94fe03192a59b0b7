"""One side of a benchmark: a process of SchNetPack or of this package that gets one job and answers requests.

SchNetPack runs in its own environment, so modules that only one side has are imported where that side needs them.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms, units
from ase.io import read
from ase.md.verlet import VelocityVerlet
from torch import Tensor

TIMESTEP_FS = 0.5
N_INTERACTIONS = 3
N_RBF = 32
CUTOFF = 5.0  # Å
SKIN = 1.0  # Å, of the neighbour list
ENERGY_WEIGHT, FORCE_WEIGHT = 0.01, 1.0  # of the training loss
MOLECULE_STEPS = 20
WEAK = 1e-3  # forces of an untrained network would heat the dynamics by thousands of kelvin


class Job(NamedTuple):
    """Job of a process."""

    task: str
    """``"md"`` or ``"train"``."""
    frames: str
    """Trajectory file: the atoms to move, or the labelled frames of a batch."""
    weights: str
    """Folder of ``<member>.npz`` files with SchNetPack's state dicts; written by its side, read by ours."""
    n_features: int
    threads: int
    members: int
    """Number of networks: whose weights are written (SchNetPack's side), or that are evaluated (our side)."""
    way: str
    """Dynamics: the `engine` of our calculators; ``"skin"`` for a list that SchNetPack keeps. Training: how our step is
    computed, ``"full"``, ``"half"`` or ``"compiled"``."""
    side: str = "ours"
    """``"ours"`` or ``"theirs"``."""


class Forces(NamedTuple):
    """Results of a side for the atoms."""

    energy: float
    forces: np.ndarray
    engine: str


class Dynamics:
    """Timed dynamics by ASE's velocity Verlet.

    An untrained network does not hold atoms together. A liquid that mixes costs as much as before, but a molecule that
    flies apart costs less, so a molecule is put back every 20 steps, outside the measured time.
    """

    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms
        self._start = atoms.positions.copy(), atoms.get_momenta()
        self._integrator = VelocityVerlet(atoms, TIMESTEP_FS * units.fs)

    def run(self, steps: int) -> float:
        """Run `steps` steps and return the time in seconds."""
        seconds = 0.0
        while steps:
            n = steps if self.atoms.pbc.any() else min(steps, MOLECULE_STEPS)
            if not self.atoms.pbc.any():
                self.atoms.positions[:] = self._start[0]
                self.atoms.set_momenta(self._start[1])
            self.atoms.get_forces()
            started = time.perf_counter()
            self._integrator.run(n)
            seconds += time.perf_counter() - started
            steps -= n
        return seconds


def serve(handlers: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """Answer requests, one line of JSON each, until standard input ends.

    ``{"do": name, ...}`` calls a handler with the other entries. The answer is what the handler returns and the largest
    resident size of this process so far, MB.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of libraries must not look like an answer
    print(json.dumps({"peak_mb": peak_mb()}), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        answer = handlers[request.pop("do")](**request)
        print(json.dumps({**answer, "peak_mb": peak_mb()}), file=answers)


def peak_mb() -> float:
    """Return the largest resident size of this process so far, MB.

    On Linux, a new process inherits the value of getrusage from its parent, so the size is read from /proc there.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    kib = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)
    if kib is not None:
        return kib * 1024 / 1e6
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 1e6 if sys.platform == "darwin" else size * 1024 / 1e6


def serve_md(atoms: Atoms, evaluate: Callable[[], Forces], builds: Callable[[], int] = lambda: 0) -> None:
    """Serve dynamics by velocity Verlet; `builds` counts the neighbour lists so far."""
    dynamics = Dynamics(atoms)

    def forces(file: str) -> dict[str, Any]:
        found = evaluate()
        np.save(file, found.forces)
        return {"energy": found.energy, "engine": found.engine}

    def run(steps: int) -> dict[str, Any]:
        before = builds()
        return {"seconds": dynamics.run(steps), "lists": builds() - before}

    serve({"forces": forces, "run": run})


def serve_training(
    loss_and_gradient: Callable[[], Tensor], optimizer: torch.optim.Optimizer, arrays: Callable[[], dict[str, Tensor]]
) -> None:
    """Serve training steps on one batch that is made once, without loader and logging."""

    def run(steps: int) -> dict[str, Any]:
        started = time.perf_counter()
        for _ in range(steps):
            loss_and_gradient()
            optimizer.step()
        return {"seconds": time.perf_counter() - started}

    def gradient(file: str) -> dict[str, Any]:
        loss = loss_and_gradient()
        write_arrays(file, arrays())
        return {"loss": loss.item()}

    serve({"gradient": gradient, "run": run})


def write_arrays(file: str, tensors: dict[str, Tensor]) -> None:
    """Write named arrays to an ``.npz`` file, which our side reads without unpickling."""
    np.savez(file, **{name: tensor.detach().numpy() for name, tensor in tensors.items()})


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def ours(job: Job) -> None:
    """Serve one network, or several and their spread, with the weights that the other side wrote."""
    from schnet_ase import SchNetCalculator, SchNetEnsembleCalculator
    from schnet_ase.data import Frame
    from schnet_ase.data.batches import collate, make_example
    from schnet_ase.export.schnetpack import from_schnetpack
    from schnet_ase.geometry.graph import Pairs
    from schnet_ase.geometry.system import geometry
    from schnet_ase.networks import schnet
    from schnet_ase.training.step.compiled import compiled_step
    from schnet_ase.training.step.loss import LossTerms, eager_step

    models = []
    for member in range(job.members):
        with np.load(Path(job.weights) / f"{member}.npz") as arrays:
            models.append(from_schnetpack(dict(arrays), readout_activation="ssp"))
    if job.task == "md":
        atoms = read(job.frames)
        options: dict[str, Any] = {"device": "cpu", "engine": job.way, "skin": SKIN, "threads": job.threads}
        several = len(models) > 1
        make, given = (SchNetEnsembleCalculator, models) if several else (SchNetCalculator, models[0])
        atoms.calc = make(given, **options)

        def evaluate() -> Forces:
            atoms.get_forces()
            results = atoms.calc.results
            energy, forces = (results[f"{k}_ensemble"][0] if several else results[k] for k in ("energy", "forces"))
            return Forces(float(energy), forces, atoms.calc.engine.name)

        serve_md(atoms, evaluate, lambda: atoms.calc._evaluator.neighbors.builds)
        return

    def cfconv_one_way(x: Tensor, filters: Tensor, pairs: Pairs) -> Tensor:
        """Convolve over a list with each pair in both directions, as most programs do."""
        return torch.zeros_like(x).index_add(0, pairs.first, x[pairs.second] * filters)

    (model,) = models
    frames = [Frame(geometry(f), f.get_potential_energy(), f.get_forces()) for f in read(job.frames, ":")]
    batch = collate([make_example(frame, CUTOFF) for frame in frames])
    if job.way == "full":
        schnet.cfconv = cfconv_one_way
        first, second = batch.graph.pairs
        both = Pairs(torch.cat([first, second]), torch.cat([second, first]))
        batch = batch._replace(graph=batch.graph._replace(pairs=both))
    make_step = compiled_step if job.way == "compiled" else eager_step
    loss_and_gradient = make_step(model, LossTerms(ENERGY_WEIGHT, FORCE_WEIGHT))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
    serve_training(lambda: loss_and_gradient(batch), optimizer, lambda: gradients(model))


def theirs(job: Job) -> None:
    """Serve an untrained network as SchNetPack initializes it, with the paper's readout and shifted softplus."""
    import schnetpack as spk
    from schnetpack.interfaces import AtomsConverter, SpkCalculator
    from schnetpack.transform import MatScipyNeighborList, SkinNeighborList

    def potential(member: int) -> Any:
        torch.manual_seed(member)
        representation = spk.representation.SchNet(
            n_atom_basis=job.n_features,
            n_interactions=N_INTERACTIONS,
            radial_basis=spk.nn.GaussianRBF(n_rbf=N_RBF, cutoff=CUTOFF),
            cutoff_fn=spk.nn.CosineCutoff(CUTOFF),
        )
        activation = spk.nn.shifted_softplus
        readout = spk.atomistic.Atomwise(n_in=job.n_features, output_key="energy", activation=activation)
        if job.task == "md":
            with torch.no_grad():
                readout.outnet[1].weight.mul_(WEAK)
        return spk.model.NeuralNetworkPotential(
            representation,
            input_modules=[spk.atomistic.PairwiseDistances()],
            output_modules=[readout, spk.atomistic.Forces()],
        )

    for member in range(job.members):
        write_arrays(os.path.join(job.weights, f"{member}.npz"), potential(member).state_dict())
    model, neighbors = potential(0), MatScipyNeighborList(cutoff=CUTOFF)
    if job.task == "md":  # a new list at every step, or one with the same skin as ours
        file = os.path.join(job.weights, "schnetpack.pt")
        torch.save(model, file)
        atoms = read(job.frames)
        if job.way == "skin":
            neighbors = SkinNeighborList(neighbors, cutoff_skin=SKIN)
        atoms.calc = SpkCalculator(file, neighbor_list=neighbors, energy_unit="eV")
        serve_md(atoms, lambda: Forces(atoms.get_potential_energy(), atoms.get_forces(), "PyTorch"))
        return
    frames = read(job.frames, ":")
    batch = AtomsConverter(neighbor_list=neighbors)([f.copy() for f in frames])
    energy = torch.tensor([f.get_potential_energy() for f in frames], dtype=torch.float32)
    forces = torch.tensor(np.concatenate([f.get_forces() for f in frames]), dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    model.train()

    def loss_and_gradient() -> Tensor:
        optimizer.zero_grad()
        inputs = dict(batch)
        inputs[spk.properties.R] = batch[spk.properties.R].clone()
        predicted = model(inputs)
        loss = ENERGY_WEIGHT * ((predicted["energy"] - energy) ** 2).mean()
        loss = loss + FORCE_WEIGHT * ((predicted["forces"] - forces) ** 2).sum(dim=1).mean()
        loss.backward()
        return loss

    serve_training(loss_and_gradient, optimizer, lambda: model.state_dict() | gradients(model))


if __name__ == "__main__":
    given = Job(**json.loads(sys.argv[1]))
    torch.set_num_threads(given.threads)
    {"ours": ours, "theirs": theirs}[given.side](given)
