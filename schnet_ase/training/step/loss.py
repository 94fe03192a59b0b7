"""The loss, and one step's loss and gradient with respect to the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from schnet_ase.data.batches import Batch
from schnet_ase.errors import TrainingError
from schnet_ase.evaluation.evaluate import Evaluation
from schnet_ase.geometry.graph import Graph
from schnet_ase.inference.forces import Prediction, predict
from schnet_ase.networks import SchNet
from schnet_ase.training.config import LossKind, TrainingConfig
from schnet_ase.training.step.side_by_side import SideBySide

Trainable = SchNet | SideBySide
GradientStep = Callable[[Batch], Tensor]
"""Function from a batch to the loss of each network on its share, (K,); it leaves the gradient in the parameters'
``.grad``."""
ROUNDED = 1e-4
"""eV or eV/Å below which a parabola replaces an absolute error, so that its slope does not jump at zero."""


class LossTerms(NamedTuple):
    """Terms of the loss; see `frame_losses`."""

    energy: float
    force: float
    kind: LossKind = "squared"
    stress: float = 0.0

    @property
    def derivatives(self) -> bool:
        """Whether the loss needs forces or stress, and thus a derivative of the energy."""
        return self.force > 0 or self.stress > 0


def loss_terms(training: TrainingConfig) -> LossTerms:
    """Return the loss terms of a training."""
    return LossTerms(training.energy_weight, training.force_weight, training.loss, training.stress_weight)


def frame_losses(prediction: Prediction, batch: Batch, terms: LossTerms, *, complete: bool = False) -> Tensor:
    r"""Compute the losses of the B systems of a batch, whose mean is the loss of the batch: each one's weight times

    .. math::

        \rho |E - \hat E|^p + \frac{w}{n} \sum_i |F_i + \partial \hat E / \partial r_i|^p
        + s \left| \frac{V}{\sqrt n} (\sigma - \hat \sigma) \right|^p

    for n atoms in a cell of volume V. The term of a missing label is zero.

    Parameters
    ----------
    prediction, batch
        Predictions and labels; energies in eV, forces in eV/Å, virials :math:`V \sigma` in eV.
    terms
        ``energy``: :math:`\rho` in Å⁻ᵖ. All terms scale alike with the unit of energy, so that the seed report's 0.01
        for kcal/mol is 0.01 here. ``force``: w. ``stress``: s in Å⁻ᵖ, with the Frobenius norm over nine components,
        which no rotation changes. ``kind``: ``"squared"``, p = 2, as in the paper, or ``"absolute"``, p = 1, which
        gives less weight to what is hard to learn.
    complete
        Whether every frame is known to have every label that counts, which saves the search for missing ones.

    Returns
    -------
    Tensor
        (B,) (eV/Å)ᵖ.

    References
    ----------
    Schütt et al., NeurIPS 30 (2017), eq. 5. With p = 1 the forces' term is the L2MAE of Gasteiger et al., *GemNet-OC*,
    arXiv:2204.02782 (2022). The stress term with p = 2 is that of DeePMD-kit, Wang et al., Comput. Phys. Commun. 228,
    178 (2018), for :math:`s = p_\xi / 9`: virials of n atoms with independent errors differ by :math:`\sqrt n`, so that
    one s serves cells of all sizes.
    """
    energies = forces = virials = None
    if terms.energy:
        energies = _errors(prediction.energy, batch.energy, complete)
    if terms.force:
        assert prediction.forces is not None
        forces = _errors(prediction.forces, batch.forces, complete)
    if terms.stress:
        assert prediction.virial is not None
        virials = _errors(prediction.virial, batch.virial, complete)
    return _losses(energies, forces, virials, _Frames(batch.n_atoms, batch.graph.system, batch.weight), terms)


def evaluation_loss(evaluation: Evaluation, terms: LossTerms) -> float:
    """Return the mean of `frame_losses` over many frames."""
    e = evaluation
    energies = forces = virials = None
    if terms.energy and e.reference_energy is not None:
        energies = _errors(torch.from_numpy(e.energy), torch.from_numpy(e.reference_energy))
    if terms.force and e.reference_forces is not None:
        forces = _errors(torch.from_numpy(e.forces), torch.from_numpy(e.reference_forces))
    if terms.stress and e.reference_stress is not None:
        virials = _errors(torch.from_numpy(e.virial(e.stress)), torch.from_numpy(e.virial(e.reference_stress)))
    system = torch.from_numpy(np.repeat(np.arange(len(e.n_atoms)), e.n_atoms))
    frames = _Frames(torch.from_numpy(e.n_atoms.astype(float)), system, torch.from_numpy(e.weight))
    return _losses(energies, forces, virials, frames, terms).mean().item()


def is_complete(batch: Batch, terms: LossTerms) -> bool:
    """Return whether every frame has every label that the loss counts."""
    labels = (terms.energy, batch.energy), (terms.force, batch.forces), (terms.stress, batch.virial)
    return not any(bool(label.isnan().any()) for weight, label in labels if weight)


def _errors(predicted: Tensor, labels: Tensor, complete: bool = False) -> Tensor:
    """Return the errors, zero without a label; a NaN prediction stays NaN."""
    if complete:
        return predicted - labels
    return torch.where(labels.isnan(), 0.0, predicted - labels)


def check_labels(training: Sequence[Batch], validation: Sequence[Batch], terms: LossTerms, source: str) -> None:
    """Refuse frames without any label that the loss counts, before hours are spent on them.

    Raises
    ------
    TrainingError
        No training frame, or no validation frame, has such a label and a nonzero weight.
    """

    def counts(example: Batch) -> bool:
        labels = (terms.energy, example.energy), (terms.force, example.forces), (terms.stress, example.virial)
        return bool(example.weight.any()) and any(bool(w) and not bool(label.isnan().all()) for w, label in labels)

    for use, examples in (("train", training), ("validate", validation)):
        if not any(counts(e) for e in examples):
            raise TrainingError(
                f"{source}: of the {len(examples)} frames to {use} on none has a label that the loss counts; "
                "give more labelled frames, or set training.energy_weight, force_weight and stress_weight by the "
                "labels that there are"
            )


class _Frames(NamedTuple):
    n_atoms: Tensor
    system: Tensor
    weight: Tensor


def _losses(
    energies: Tensor | None, forces: Tensor | None, virials: Tensor | None, frames: _Frames, terms: LossTerms
) -> Tensor:
    """Compute losses from the errors of energies, forces and virials; None: these do not count."""
    loss = torch.zeros_like(frames.n_atoms)
    if energies is not None:
        loss = loss + terms.energy * _size(energies**2, terms.kind)
    if forces is not None:
        sizes = _size((forces**2).sum(dim=1), terms.kind)
        sums = torch.zeros_like(frames.n_atoms).index_add(0, frames.system, sizes)
        loss = loss + terms.force * sums / frames.n_atoms
    if virials is not None:
        squares = (virials**2).sum(dim=(1, 2)) / frames.n_atoms
        loss = loss + terms.stress * _size(squares, terms.kind)
    return frames.weight * loss


def _size(squared: Tensor, kind: LossKind) -> Tensor:
    """Return the size of an error from its square."""
    return squared if kind == "squared" else torch.sqrt(squared + ROUNDED**2) - ROUNDED


def eager_step(
    model: Trainable, terms: LossTerms, predicted: Callable[[Graph], Prediction] | None = None
) -> GradientStep:
    """Make a step that PyTorch runs without compilation.

    Parameters
    ----------
    model
        Model whose parameters get the gradient.
    terms
        As in `frame_losses`.
    predicted
        Function that computes the model's predictions and can be differentiated; None: `predict`.
    """
    parameters = list(model.parameters())
    if predicted is None:
        predicted = partial(predict, model, gradients=terms.derivatives, create_graph=True)

    def step(batch: Batch) -> Tensor:
        for parameter in parameters:
            parameter.grad = None
        losses = frame_losses(predicted(batch.graph), batch, terms)
        return backward(losses, model.n_networks)

    return step


def backward(losses: Tensor, n_networks: int) -> Tensor:
    """Return the loss of each network and backpropagate their sum, because the losses are independent."""
    loss = losses.view(n_networks, -1).mean(dim=1)
    loss.sum().backward()
    return loss.detach()
