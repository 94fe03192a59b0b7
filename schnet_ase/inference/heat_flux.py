r"""Heat flux of a message-passing network, exact for molecules and crystals.

With the energy of each atom, :math:`e_i = \frac12 m_i v_i^2 + U_i`, the heat flux is the time derivative of
:math:`\sum_i r_i e_i`. The convective part is :math:`\sum_i v_i e_i`; the potential part, with the derivatives
:math:`G_{ip} = \partial U_i / \partial r_p` with respect to the vectors :math:`r_p = r_b - r_a` of all pairs, is

.. math:: J = \sum_i \sum_p (r_i - r_b) \, G_{ip} \cdot v_b - (r_i - r_a) \, G_{ip} \cdot v_a .

An atom's energy depends on pairs that are several interactions away, so that half of a pair's gradient is not enough,
and in a crystal the distance :math:`r_i - r_b` is that along the path by which the energy depends on the pair. It is
added up on that path: the derivative of the features along the velocities is carried forward through the interactions,
and with it the same derivative weighted with the distance to where it arose, which each message moves by its vector.

References
----------
Fan, Pereira, Wang, Zheng, Donadio, Harju, Phys. Rev. B 92, 094301 (2015); Langer, Knoop, Carbogno, Scheffler, Rupp,
Phys. Rev. B 108, L100302 (2023), where the system is unfolded instead.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.graph import Graph, make_graph, pair_vectors
from schnet_ase.geometry.neighbors import pair_vectors as vectors_of
from schnet_ase.geometry.system import Geometry
from schnet_ase.inference.derivatives import gradients_of, usable_pairs
from schnet_ase.inference.evaluator import Evaluator
from schnet_ase.networks import SchNet
from schnet_ase.networks.schnet import Interaction
from schnet_ase.priors import fixed_terms


class HeatFlux(NamedTuple):
    """Heat flux of all atoms, not divided by the volume; eV Å over ASE's unit of time."""

    potential: Floats
    """(3,) energy that atoms transfer to each other."""
    convective: Floats
    """(3,) energy that atoms carry along, with the reference energies of their elements."""


@torch.inference_mode(False)
@torch.no_grad()
def potential_flux(evaluator: Evaluator, system: Geometry, velocities: Floats) -> Floats:
    """Compute the potential part of the heat flux, the mean over members, by PyTorch in float64.

    Parameters
    ----------
    evaluator
        The networks.
    system
        N atoms.
    velocities
        (N, 3) Å over any unit of time.

    Returns
    -------
    Floats
        (3,) eV Å over that unit of time.

    Raises
    ------
    StructureError
        As in `Evaluator`.
    PropertyNotImplementedError
        The model has dispersion, which gives no derivatives of the energies of atoms.
    """
    pairs = usable_pairs(evaluator, system)
    networks, device = evaluator.networks, evaluator.device
    flux = np.zeros(3)
    for term in fixed_terms(networks.config):  # half of a pair's energy is either atom's
        both = velocities[pairs.first] + velocities[pairs.second]
        power = np.einsum("pk,pk->p", gradients_of(term, system, pairs), both)
        flux -= 0.5 * power @ vectors_of(system, pairs)
    graph = make_graph(system, pairs).to(device)
    moving = torch.as_tensor(velocities, dtype=torch.float64, device=device)
    for m in range(len(networks.models)):
        member = _flux(networks.member(m, device, torch.float64), graph, moving)
        flux += member.cpu().numpy() / len(networks.models)
    return flux


def _flux(model: SchNet, graph: Graph, velocities: Tensor) -> Tensor:
    first, second = graph.pairs
    vectors = pair_vectors(graph)
    distances = torch.linalg.vector_norm(vectors, dim=-1)
    unit = vectors / distances[:, None]
    filters, slopes = cast(
        "tuple[list[Tensor], list[Tensor]]",
        torch.func.jvp(model.filters, (distances,), (torch.ones_like(distances),)),
    )
    of_first, of_second = (torch.sum(unit * velocities[atoms], dim=-1, keepdim=True) for atoms in graph.pairs)
    # What the change of a distance gives, and the same weighted with the way to the atom at which it arrives.
    shift = vectors.T[:, :, None]
    at_first = torch.cat([(of_second - of_first)[None], -shift * of_second])
    at_second = torch.cat([(of_second - of_first)[None], -shift * of_first])
    x = model.embedding(graph.numbers)
    tangents = x.new_zeros(4, *x.shape)
    for block, w, slope in zip(model.interactions, filters, slopes, strict=True):
        interaction = cast("Interaction", block)
        h, dh = _forward(partial(_enter, interaction), x, tangents)
        y, dy = torch.zeros_like(h), torch.zeros_like(dh)
        for here, there, sign, arising in ((first, second, -1.0, at_first), (second, first, 1.0, at_second)):
            message = dh[:, there]
            message = torch.cat([message[:1], message[1:] + sign * shift * message[:1]])
            y = y.index_add(0, here, h[there] * w)
            dy = dy.index_add(1, here, message * w + arising * (h[there] * slope))
        change, dchange = _forward(partial(_leave, interaction), y, dy)
        x, tangents = x + change, tangents + dchange
    _, energies = _forward(partial(_read_out, model), x, tangents)
    return torch.sum(energies[1:], dim=(1, 2)) * model.scale


def _enter(interaction: Interaction, x: Tensor) -> Tensor:
    h: Tensor = interaction.dense_in(interaction.norm(x))
    return h


def _leave(interaction: Interaction, y: Tensor) -> Tensor:
    change: Tensor = interaction.dense2(interaction.activation(interaction.dense1(y)))
    return change


def _read_out(model: SchNet, x: Tensor) -> Tensor:
    energies: Tensor = model.readout2(model.readout_activation(model.readout1(x)))
    return energies


def _forward(function: Callable[[Tensor], Tensor], x: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    """Return the function's value (N, K) and its derivatives (4, N, K) along the tangents (4, N, F)."""
    derivatives = torch.func.vmap(lambda tangent: torch.func.jvp(function, (x,), (tangent,))[1])(tangents)
    return function(x), derivatives
