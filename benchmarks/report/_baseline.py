"""The report's baseline: an energy per atom from its element and where it is, of 1,160 parameters, and its training."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from schnet_ase import SchNet
from schnet_ase.data.batches import Batch, collate
from schnet_ase.errors import TrainingError
from schnet_ase.evaluation.evaluate import Evaluation
from schnet_ase.geometry.graph import Graph, Pairs
from schnet_ase.inference.forces import Prediction, predict
from schnet_ase.training.config import TrainingConfig
from schnet_ase.training.step.loss import evaluation_loss, frame_losses, loss_terms
from schnet_ase.training.step.optimizer import learning_rate, make_optimizer
from schnet_ase.training.step.order import BatchOrder


class Baseline(nn.Module):
    r"""No atom knows of another:

    .. math:: E = \sum_i s \, w \cdot [a_{z_i}, g(r_i)] + e_{z_i}

    with an embedding a of 8 features, a network g of 3 → 16 → ReLU → 16 and a row w. The energy changes when a molecule
    is moved or turned.

    Parameters
    ----------
    normalized
        A SchNet with the scale s and the references e of the training set.
    """

    member_shape: tuple[int, ...] = ()
    scale: Tensor
    reference: Tensor

    def __init__(self, normalized: SchNet) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 8)
        self.position = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 16))
        self.readout = nn.Linear(24, 1, bias=False)
        self.register_buffer("scale", normalized.scale.clone())
        self.register_buffer("reference", normalized.reference.clone())

    def forward(self, numbers: Tensor, vectors: Tensor, pairs: Pairs) -> Tensor:
        """Per-atom energies (N,), eV; the vectors of the pairs that `predict_from_origin` makes are positions."""
        z = numbers[pairs.second]
        features = torch.cat([self.embedding(z), self.position(vectors.to(self.readout.weight.dtype))], dim=1)
        output = self.readout(features).squeeze(1).to(torch.float64)
        energies: Tensor = output * self.scale + self.reference[z]
        return energies.new_zeros(len(numbers)).index_add(0, pairs.second, energies)


def predict_from_origin(
    model: Baseline, graph: Graph, *, gradients: bool = True, create_graph: bool = False
) -> Prediction:
    """`predict` for an energy of positions: every atom's only pair is with one more, the last, that is the origin."""
    n = len(graph.numbers)
    star = Graph(
        torch.cat([graph.numbers, graph.numbers.new_zeros(1)]),
        torch.cat([graph.positions, graph.positions.new_zeros(1, 3)]),
        graph.cell,
        Pairs(torch.full((n,), n), torch.arange(n)),
        None,
        torch.cat([graph.system, graph.system.new_zeros(1)]),
    )
    p = predict(model, star, gradients=gradients, create_graph=create_graph)
    return Prediction(p.energy, p.energies[:n], None if p.forces is None else p.forces[:n], None)


def evaluate_baseline(model: Baseline, examples: Sequence[Batch]) -> Evaluation:
    batch = collate(examples)
    prediction = predict_from_origin(model, batch.graph)
    assert prediction.forces is not None
    return Evaluation(
        batch.n_atoms.numpy().astype(np.int64),
        np.zeros(len(batch.n_atoms)),
        prediction.energy.numpy(),
        prediction.forces.numpy(),
        np.full((len(batch.n_atoms), 6), np.nan),
        batch.energy.numpy(),
        batch.forces.numpy(),
        None,
        batch.graph.numbers.numpy(),
        batch.weight.numpy(),
    )


def train_baseline(
    model: Baseline,
    examples: Sequence[Batch],
    validation: Sequence[Batch],
    training: TrainingConfig,
    seed: int,
    report: Callable[[], None],
) -> None:
    """Train with SchNet's optimizer, rates and batches; the weights become those of the best validation.

    Raises
    ------
    TrainingError
        A validation loss is not finite.
    """
    terms = loss_terms(training)
    parameters = list(model.parameters())
    optimizer = make_optimizer(training, parameters)
    order = BatchOrder(np.zeros(len(examples), dtype=np.int64), training.batch_size, seed)
    least, best = math.inf, model.state_dict()
    for step in range(training.steps):
        batch = collate([examples[i] for i in order.batch(step)])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, training)
        optimizer.zero_grad()
        prediction = predict_from_origin(model, batch.graph, gradients=training.force_weight > 0, create_graph=True)
        frame_losses(prediction, batch, terms).mean().backward()
        nn.utils.clip_grad_norm_(parameters, training.clip or math.inf)
        optimizer.step()
        report()
        if (step + 1) % training.validate_every == 0 or step + 1 == training.steps:
            loss = evaluation_loss(evaluate_baseline(model, validation), terms)
            if not math.isfinite(loss):
                raise TrainingError(f"validation loss of the baseline is {loss} at step {step + 1}")
            if loss < least:
                least, best = loss, copy.deepcopy(model.state_dict())
    model.load_state_dict(best)
