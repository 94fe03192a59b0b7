"""The loss, and one step's loss and gradient with respect to the weights: eager, or compiled as one function."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental import _config
from torch.fx.experimental.proxy_tensor import make_fx

from schnet_ase.forces import Prediction, predict
from schnet_ase.model import Pairs, SchNet
from schnet_ase.training.batches import Batch
from schnet_ase.training.evaluate import Evaluation
from schnet_ase.training.filters import InterpolatedSchNet

GradientStep = Callable[[Batch], Tensor]
"""A batch to its loss; the gradient is left in the parameters' ``.grad``."""


def energy_force_loss(prediction: Prediction, batch: Batch, energy_weight: float, force_weight: float) -> Tensor:
    r"""Loss of a batch, the mean over its B systems of

    .. math:: \rho |E - \hat E|^2 + \frac{w}{n} \sum_i |F_i + \partial \hat E / \partial r_i|^2

    Parameters
    ----------
    prediction, batch
        What the network says and the labels; energies in eV, forces in eV/Å.
    energy_weight
        :math:`\rho` in Å⁻². Both terms scale alike with the unit of energy, so the seed report's 0.01 for kcal/mol
        is 0.01 here. With zero, energies need not be there.
    force_weight
        w. With zero, forces need not be there.

    Returns
    -------
    Tensor
        Scalar, (eV/Å)².

    References
    ----------
    Schütt et al., NeurIPS 30 (2017), eq. 5.
    """
    loss = batch.n_atoms.new_zeros(())
    if energy_weight:
        assert batch.energy is not None
        loss = loss + energy_weight * _energy_term(prediction.energy - batch.energy)
    if force_weight:
        assert batch.forces is not None
        assert prediction.forces is not None
        difference = prediction.forces - batch.forces
        loss = loss + force_weight * _force_term(difference, batch.graph.system, batch.n_atoms)
    return loss


def evaluation_loss(evaluation: Evaluation, energy_weight: float, force_weight: float) -> float:
    """`energy_force_loss` of predictions for many frames, (eV/Å)²."""
    e = evaluation
    loss = 0.0
    if energy_weight:
        assert e.reference_energy is not None
        loss += energy_weight * _energy_term(torch.from_numpy(e.energy - e.reference_energy)).item()
    if force_weight:
        assert e.reference_forces is not None
        system = torch.from_numpy(np.repeat(np.arange(len(e.n_atoms)), e.n_atoms))
        difference = torch.from_numpy(e.forces - e.reference_forces)
        loss += force_weight * _force_term(difference, system, torch.from_numpy(e.n_atoms.astype(float))).item()
    return loss


def _energy_term(difference: Tensor) -> Tensor:
    return (difference**2).mean()


def _force_term(difference: Tensor, system: Tensor, n_atoms: Tensor) -> Tensor:
    squared = (difference**2).sum(dim=1)
    return (torch.zeros_like(n_atoms).index_add(0, system, squared) / n_atoms).mean()


def eager_step(model: SchNet | InterpolatedSchNet, energy_weight: float, force_weight: float) -> GradientStep:
    """One step as PyTorch runs it."""

    parameters = list(model.parameters())

    def step(batch: Batch) -> Tensor:
        for parameter in parameters:
            parameter.grad = None
        prediction = predict(model, batch.graph, gradients=force_weight > 0, create_graph=True)
        loss = energy_force_loss(prediction, batch, energy_weight, force_weight)
        loss.backward()
        return loss.detach()

    return step


def compiled_step(
    model: SchNet | InterpolatedSchNet, energy_weight: float, force_weight: float, one_shape: bool = True
) -> GradientStep:
    """One step traced through both derivatives and compiled as a whole, three to five times as fast on a CPU.

    `torch.compile` does not differentiate twice, so the step is traced first, gradient included, into a graph without
    autograd.

    Parameters
    ----------
    model, energy_weight, force_weight
        As of `energy_force_loss`.
    one_shape
        Whether every batch has the shape of the first. Otherwise sizes stay variables: that takes three times as long
        to compile, and a tenth longer to run.
    """

    def loss_and_gradient(parameters: dict[str, Tensor], batch: Batch) -> tuple[Tensor, list[Tensor]]:
        leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        prediction = predict(_WithParameters(model, leaves), batch.graph, gradients=force_weight > 0, create_graph=True)
        loss = energy_force_loss(prediction, batch, energy_weight, force_weight)
        loss.backward()
        # A parameter that the loss does not reach (the last bias, without an energy term) has no gradient.
        return loss.detach(), [torch.zeros_like(p) if p.grad is None else p.grad for p in leaves.values()]

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


def compiled_or_eager_step(
    model: SchNet | InterpolatedSchNet, energy_weight: float, force_weight: float, one_shape: bool = True
) -> GradientStep:
    """`compiled_step`; where this machine cannot compile it after all, `eager_step` with a warning."""
    current = compiled_step(model, energy_weight, force_weight, one_shape)
    first = True

    def step(batch: Batch) -> Tensor:
        nonlocal current, first
        try:
            return current(batch)
        except Exception as error:  # compilers fail in ways of their own
            if not first:
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            warnings.warn(f"the training step could not be compiled ({reason}); it runs slower without", stacklevel=2)
            current = eager_step(model, energy_weight, force_weight)
            return current(batch)
        finally:
            first = False

    return step


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
