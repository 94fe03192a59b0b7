"""Energies and their derivatives with respect to the geometry; the only module that calls ``autograd.grad``."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from schnet_ase.geometry.graph import Graph, Pairs, pair_vectors


class EnergyModel(Protocol):
    """A model that can be differentiated: a `SchNet` (no member axis) or several stacked ones (M members in front)."""

    member_shape: tuple[int, ...]
    """``()`` for one model, ``(M,)`` for M stacked ones."""

    def __call__(self, numbers: Tensor, vectors: Tensor, pairs: Pairs, /) -> Tensor:
        """Compute per-atom energies (\\*member_shape, N), eV, from pair vectors (\\*member_shape, P, 3), Å."""


class Prediction(NamedTuple):
    """Energies and derivatives of the B systems and N atoms of a graph; (M,) in front for M stacked models."""

    energy: Tensor
    """(B,) eV."""
    energies: Tensor
    """(N,) eV, per atom; sums to `energy`."""
    forces: Tensor | None
    """(N, 3) eV/Å."""
    virial: Tensor | None
    """(B, 3, 3) derivative of the energy with respect to a strain of the system, eV; stress is this over the volume."""
    pair_gradients: Tensor | None = None
    """(P, 3) derivative of the energy with respect to each pair vector, eV/Å."""


def predict(model: EnergyModel, graph: Graph, *, gradients: bool = True, create_graph: bool = False) -> Prediction:
    r"""Compute energy, per-atom energies, forces and virial of a graph.

    The energy depends on the geometry only through the pair vectors. Therefore one gradient
    :math:`g_{ij} = \partial E / \partial r_{ij}` gives both the forces :math:`F_i = \sum_j g_{ij} - \sum_j g_{ji}`
    (minus the gradient of the energy, NeurIPS 30 (2017), eq. 4) and the virial :math:`\sum_{ij} r_{ij} \otimes g_{ij}`.

    Parameters
    ----------
    model
        A `SchNet`, or several of them stacked.
    graph
        N atoms in B systems.
    gradients
        Whether derivatives are wanted; without, forces, virial and gradients of pairs are None.
    create_graph
        Whether the forces can be differentiated again (training on them, Hessians). Otherwise they are constants, and a
        loss on them would train nothing.

    Returns
    -------
    Prediction
    """
    vectors = pair_vectors(graph)
    # Each member gets its own copy, so that one backward pass gives every member's own gradient.
    vectors = vectors.expand(*model.member_shape, *vectors.shape)
    if gradients and not vectors.requires_grad:
        vectors = vectors.detach().requires_grad_()
    with torch.set_grad_enabled(gradients or torch.is_grad_enabled()):
        energies = model(graph.numbers, vectors, graph.pairs)
        if not gradients:
            energy = energies.new_zeros(*model.member_shape, graph.n_systems).index_add(-1, graph.system, energies)
            return Prediction(energy, energies, None, None)
        (gradient,) = torch.autograd.grad(energies.sum(), vectors, create_graph=create_graph)
    if not create_graph:
        energies, vectors = energies.detach(), vectors.detach()
    return with_derivatives(energies, gradient, vectors, graph)


def with_derivatives(energies: Tensor, gradient: Tensor, vectors: Tensor, graph: Graph) -> Prediction:
    """Make a prediction from per-atom energies (\\*member_shape, N), and from the gradient for the pair vectors and
    the pair vectors themselves, (\\*member_shape, P, 3); see `predict`."""
    shape = energies.shape[:-1]
    energy = energies.new_zeros(*shape, graph.n_systems).index_add(-1, graph.system, energies)
    first, second = graph.pairs
    forces = gradient.new_zeros(*shape, graph.numbers.shape[0], 3)
    forces = forces.index_add(-2, first, gradient).index_add(-2, second, -gradient)
    virial = gradient.new_zeros(*shape, graph.n_systems, 3, 3)
    virial = virial.index_add(-3, graph.system[first], vectors[..., :, None] * gradient[..., None, :])
    # Symmetric for a rotation-invariant energy; what is left is rounding.
    return Prediction(energy, energies, forces, 0.5 * (virial + virial.mT), gradient)


def hessian(model: EnergyModel, graph: Graph, at_once: int) -> Tensor:
    """Compute the second derivatives of the energy with respect to the positions.

    Parameters
    ----------
    model
        One model, not a stack.
    graph
        One system of N atoms; its cell does not change.
    at_once
        Number of rows that are computed together; it affects only speed and memory.

    Returns
    -------
    Tensor
        (3N, 3N) eV/Å², in the order x, y, z of the first atom, of the second, ...; symmetric up to rounding.
    """
    positions = graph.positions.detach().requires_grad_()
    forces = predict(model, graph._replace(positions=positions), create_graph=True).forces
    assert forces is not None
    flat = -forces.reshape(-1)
    if not flat.requires_grad:  # no pairs
        return flat.new_zeros(len(flat), len(flat))
    rows = []
    for directions in torch.eye(len(flat), dtype=flat.dtype, device=flat.device).split(at_once):
        (row,) = torch.autograd.grad(flat, positions, directions, retain_graph=True, is_grads_batched=True)
        rows.append(row.reshape(len(directions), -1))
    return torch.cat(rows)
