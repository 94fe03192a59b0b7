"""The loss, and one step's loss and gradient with respect to the weights: eager, or compiled as one function."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental import _config
from torch.fx.experimental.proxy_tensor import make_fx

from schnet_ase.forces import Prediction, predict
from schnet_ase.model import Pairs, SchNet
from schnet_ase.training.batches import Batch
from schnet_ase.training.config import LossKind
from schnet_ase.training.evaluate import Evaluation
from schnet_ase.training.filters import InterpolatedSchNet
from schnet_ase.training.side_by_side import SideBySide

Trainable = SchNet | InterpolatedSchNet | SideBySide
GradientStep = Callable[[Batch], Tensor]
"""A batch to the loss of each network on its share of it, (K,); the gradient is left in the parameters' ``.grad``."""
ROUNDED = 1e-4
"""eV or eV/Å below which an absolute error is rounded off to a parabola, whose slope has no jump at zero."""


def energy_force_losses(
    prediction: Prediction, batch: Batch, energy_weight: float, force_weight: float, kind: LossKind = "squared"
) -> Tensor:
    r"""Losses of the B systems of a batch, whose mean is the batch's: each one's weight times

    .. math:: \rho |E - \hat E|^p + \frac{w}{n} \sum_i |F_i + \partial \hat E / \partial r_i|^p

    Parameters
    ----------
    prediction, batch
        What the network says and the labels; energies in eV, forces in eV/Å.
    energy_weight
        :math:`\rho` in Å⁻ᵖ. Both terms scale alike with the unit of energy, so the seed report's 0.01 for kcal/mol
        is 0.01 here. With zero, energies need not be there.
    force_weight
        w. With zero, forces need not be there.
    kind
        ``"squared"``: p = 2, the paper's. ``"absolute"``: p = 1, where what is hard to learn counts for less.

    Returns
    -------
    Tensor
        (B,) (eV/Å)ᵖ.

    References
    ----------
    Schütt et al., NeurIPS 30 (2017), eq. 5. With p = 1 the forces' term is the L2MAE of Gasteiger et al., *GemNet-OC*,
    arXiv:2204.02782 (2022).
    """
    energies = None
    if energy_weight:
        assert batch.energy is not None
        energies = prediction.energy - batch.energy
    forces = None
    if force_weight:
        assert batch.forces is not None
        assert prediction.forces is not None
        forces = prediction.forces - batch.forces
    frames = _Frames(batch.n_atoms, batch.graph.system, batch.weight)
    return _losses(energies, forces, frames, energy_weight, force_weight, kind)


def evaluation_loss(
    evaluation: Evaluation, energy_weight: float, force_weight: float, kind: LossKind = "squared"
) -> float:
    """The mean of `energy_force_losses` over many frames."""
    e = evaluation
    energies = None
    if energy_weight:
        assert e.reference_energy is not None
        energies = torch.from_numpy(e.energy - e.reference_energy)
    forces = None
    if force_weight:
        assert e.reference_forces is not None
        forces = torch.from_numpy(e.forces - e.reference_forces)
    system = torch.from_numpy(np.repeat(np.arange(len(e.n_atoms)), e.n_atoms))
    frames = _Frames(torch.from_numpy(e.n_atoms.astype(float)), system, torch.from_numpy(e.weight))
    return _losses(energies, forces, frames, energy_weight, force_weight, kind).mean().item()


class _Frames(NamedTuple):
    n_atoms: Tensor
    system: Tensor
    weight: Tensor


def _losses(
    energies: Tensor | None,
    forces: Tensor | None,
    frames: _Frames,
    energy_weight: float,
    force_weight: float,
    kind: LossKind,
) -> Tensor:
    """Of the errors of energies and forces; None: they do not count."""
    loss = torch.zeros_like(frames.n_atoms)
    if energies is not None:
        loss = loss + energy_weight * _size(energies**2, kind)
    if forces is not None:
        sizes = _size((forces**2).sum(dim=1), kind)
        sums = torch.zeros_like(frames.n_atoms).index_add(0, frames.system, sizes)
        loss = loss + force_weight * sums / frames.n_atoms
    return frames.weight * loss


def _size(squared: Tensor, kind: LossKind) -> Tensor:
    """Of an error, from its square."""
    return squared if kind == "squared" else torch.sqrt(squared + ROUNDED**2) - ROUNDED


def eager_step(model: Trainable, energy_weight: float, force_weight: float, kind: LossKind = "squared") -> GradientStep:
    """One step as PyTorch runs it."""

    parameters = list(model.parameters())

    def step(batch: Batch) -> Tensor:
        for parameter in parameters:
            parameter.grad = None
        prediction = predict(model, batch.graph, gradients=force_weight > 0, create_graph=True)
        losses = energy_force_losses(prediction, batch, energy_weight, force_weight, kind)
        return _backward(losses, model.n_networks)

    return step


def compiled_step(
    model: Trainable,
    energy_weight: float,
    force_weight: float,
    kind: LossKind = "squared",
    one_shape: bool = True,
) -> GradientStep:
    """One step traced through both derivatives and compiled as a whole, three to five times as fast on a CPU.

    `torch.compile` does not differentiate twice, so the step is traced first, gradient included, into a graph without
    autograd.

    Parameters
    ----------
    model, energy_weight, force_weight, kind
        As of `energy_force_losses`.
    one_shape
        Whether every batch has the shape of the first. Otherwise sizes stay variables: that takes three times as long
        to compile, and a tenth longer to run.
    """

    def loss_and_gradient(parameters: dict[str, Tensor], batch: Batch) -> tuple[Tensor, list[Tensor]]:
        leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        prediction = predict(_WithParameters(model, leaves), batch.graph, gradients=force_weight > 0, create_graph=True)
        losses = energy_force_losses(prediction, batch, energy_weight, force_weight, kind)
        loss = _backward(losses, model.n_networks)
        # A parameter that the loss does not reach (the last bias, without an energy term) has no gradient.
        return loss, [torch.zeros_like(p) if p.grad is None else p.grad for p in leaves.values()]

    names, parameters = zip(*model.named_parameters(), strict=True)
    compiled: dict[tuple[object, ...], Callable[[dict[str, Tensor], Batch], tuple[Tensor, list[Tensor]]]] = {}

    def compile_for(form: tuple[object, ...], weights: dict[str, Tensor], batch: Batch) -> None:
        # Two sizes that happen to be equal in the first batch are not one.
        with _config.patch(use_duck_shape=False):  # type: ignore[attr-defined]
            trace = make_fx(
                loss_and_gradient, tracing_mode="real" if one_shape else "symbolic", _allow_non_fake_inputs=True
            )
            compiled[form] = torch.compile(trace(weights, batch), fullgraph=True, dynamic=not one_shape)

    def step(batch: Batch) -> Tensor:
        weights = {name: p.detach() for name, p in zip(names, parameters, strict=True)}
        form = _form(batch)
        if form not in compiled:
            compile_for(form, weights, batch)
        with torch.no_grad():
            loss, gradient = compiled[form](weights, batch)
        for parameter, g in zip(parameters, gradient, strict=True):
            parameter.grad = g
        return loss

    return step


def _form(batch: Batch) -> tuple[object, ...]:
    """What a trace takes for granted even where sizes are variables: that there is none of something, or just one."""
    sizes = len(batch.n_atoms), len(batch.graph.numbers), len(batch.graph.pairs.first)
    return batch.graph.shifts is None, *(min(size, 2) for size in sizes)


def with_fallback(compiled: GradientStep, fallback: Callable[[str], GradientStep]) -> GradientStep:
    """A step; where its first call fails, since this machine cannot compile it after all, `fallback` of the reason."""
    current, first = compiled, True

    def step(batch: Batch) -> Tensor:
        nonlocal current, first
        try:
            return current(batch)
        except Exception as error:  # compilers fail in ways of their own
            if not first:
                raise
            current = fallback((str(error).strip() or type(error).__name__).splitlines()[0])
            return current(batch)
        finally:
            first = False

    return step


def _backward(losses: Tensor, n_networks: int) -> Tensor:
    """The loss of each network, whose gradients, none of which depends on another's, are those of the sum."""
    loss = losses.view(n_networks, -1).mean(dim=1)
    loss.sum().backward()
    return loss.detach()


class _WithParameters:
    """A module with its parameters given from outside."""

    member_shape: tuple[int, ...] = ()

    def __init__(self, module: nn.Module, parameters: dict[str, Tensor]) -> None:
        self.module = module
        self.parameters = parameters

    def __call__(self, numbers: Tensor, vectors: Tensor, pairs: Pairs) -> Tensor:
        result: Tensor = torch.func.functional_call(self.module, self.parameters, (numbers, vectors, pairs))
        return result


def can_compile() -> bool:
    """Whether a C++ compiler is there for `torch.compile` on the CPU."""
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))
