"""What is asked for less often than forces: Hessians, virials of atoms, and descriptors."""

from __future__ import annotations

import numpy as np
import torch
from ase.calculators.calculator import PropertyNotImplementedError

from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.graph import make_graph
from schnet_ase.geometry.neighbors import HalfNeighbors, pair_vectors
from schnet_ase.geometry.system import Geometry
from schnet_ase.inference.autograd import closest_pair
from schnet_ase.inference.checks import refuse_coincident
from schnet_ase.inference.evaluator import Evaluator
from schnet_ase.inference.forces import hessian as network_hessian
from schnet_ase.inference.representation import features
from schnet_ase.priors import Term, fixed_terms

PAIRS_AT_ONCE = 1 << 14
"""Number of pairs times rows of a Hessian that are computed together, which bounds the memory."""


@torch.inference_mode(False)
@torch.enable_grad()
def hessians(evaluator: Evaluator, system: Geometry) -> Floats:
    """Compute the second derivatives of each member's energy by PyTorch in float64.

    Returns
    -------
    Floats
        (M, 3N, 3N) eV/Å², symmetric, in the order x, y, z of the first atom, of the second, ...

    Raises
    ------
    StructureError
        As in `Evaluator`.
    """
    pairs = usable_pairs(evaluator, system)
    networks, device = evaluator.networks, evaluator.device
    graph = make_graph(system, pairs).to(device)
    rows = max(1, PAIRS_AT_ONCE // max(1, len(pairs.first)))
    members = [
        network_hessian(networks.member(m, device, torch.float64), graph, rows).cpu().numpy()
        for m in range(len(networks.models))
    ]
    total = np.array(members)
    for term in fixed_terms(networks.config):
        total += term.hessian(system, pairs).reshape(total.shape[1:])
    symmetric: Floats = 0.5 * (total + total.transpose(0, 2, 1))
    return symmetric


def virials(evaluator: Evaluator, system: Geometry) -> Floats:
    r"""Compute the virial of each atom, the mean over members.

    With the derivative :math:`g_{ij}` of the energy with respect to the vector :math:`r_{ij}` of each pair, an atom has
    half of :math:`r_{ij} \otimes g_{ij}` of each of its pairs.

    Returns
    -------
    Floats
        (N, 3, 3) eV; their sum is the derivative of the energy with respect to a strain: stress times volume.

    Raises
    ------
    StructureError
        As in `Evaluator`.
    PropertyNotImplementedError
        The model has dispersion, which is not a sum over these pairs.
    """
    pairs = usable_pairs(evaluator, system)
    predicted = evaluator.backend(system, pairs, pair_gradients=True)
    assert predicted.pair_gradients is not None
    gradients = predicted.pair_gradients.mean(axis=0)
    for term in evaluator.terms:
        gradients += gradients_of(term, system, pairs)
    half = 0.5 * pair_vectors(system, pairs)[:, :, None] * gradients[:, None, :]
    result = np.zeros((len(system.numbers), 3, 3))
    np.add.at(result, pairs.first, half)
    np.add.at(result, pairs.second, half)
    return 0.5 * (result + result.swapaxes(1, 2))  # symmetric up to rounding: each gradient is along its vector


def gradients_of(term: Term, system: Geometry, pairs: HalfNeighbors) -> Floats:
    """Return the derivative of a fixed term with respect to each pair vector, (P, 3) eV/Å.

    Raises
    ------
    PropertyNotImplementedError
        The term is not a sum over these pairs.
    """
    gradients = term.pair_gradients(system, pairs)
    if gradients is None:
        raise PropertyNotImplementedError(
            f"{type(term).__name__.lower()} gives no derivatives of pairs or of the energies of atoms, which this "
            "needs; take a model without it"
        )
    return gradients


def descriptors(evaluator: Evaluator, system: Geometry, member: int) -> Floats:
    """Compute the features of each atom after the last interaction, (N, F), by PyTorch in the evaluator's dtype.

    Raises
    ------
    StructureError
        As in `Evaluator`.
    ValueError
        There is no such member.
    """
    networks = evaluator.networks
    if not 0 <= member < len(networks.models):
        raise ValueError(f"member is {member}; expected 0 to {len(networks.models) - 1}")
    graph = make_graph(system, usable_pairs(evaluator, system)).to(evaluator.device)
    return features(networks.member(member, evaluator.device, evaluator.dtype), graph)


def usable_pairs(evaluator: Evaluator, system: Geometry) -> HalfNeighbors:
    """Return the pairs of a system that the network can evaluate."""
    evaluator.check(system)
    pairs = evaluator.neighbors.get(system)
    refuse_coincident(closest_pair(system, pairs))
    return pairs
