"""The network's own description of atoms and their surroundings: its features before the readout."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms

from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.graph import Graph, batch_graphs, build_graph, pair_vectors
from schnet_ase.geometry.system import geometry
from schnet_ase.networks import SchNet


def features(model: SchNet, graph: Graph) -> Floats:
    """Return the network's representation of every atom of a graph, (N, F) float64."""
    with torch.no_grad():
        filters = model.filters(torch.linalg.vector_norm(pair_vectors(graph), dim=-1))
        x: Floats = model.representation(graph.numbers, filters, graph.pairs).double().cpu().numpy()
    return x


def representations(frames: Sequence[Atoms], model: SchNet, batch_size: int = 64) -> list[Floats]:
    """Return the network's representation of every atom, (N, F) per frame."""
    found: list[Floats] = []
    for start in range(0, len(frames), batch_size):
        some = frames[start : start + batch_size]
        graph = batch_graphs([build_graph(geometry(atoms), model.config.pair_cutoff) for atoms in some])
        found += np.split(features(model, graph), np.cumsum([len(atoms) for atoms in some])[:-1])
    return found
