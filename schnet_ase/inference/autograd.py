"""The reference backend: PyTorch differentiates the network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from schnet_ase.geometry.graph import Graph, make_graph
from schnet_ase.geometry.neighbors import HalfNeighbors, pair_vectors
from schnet_ase.geometry.system import Geometry
from schnet_ase.inference.backend import Closest, SystemPrediction
from schnet_ase.inference.device import is_forked
from schnet_ase.inference.forces import predict
from schnet_ase.inference.networks import FixedNetworks


class Autograd:
    """One or several networks on a device, evaluated by `forces.predict`."""

    def __init__(self, networks: FixedNetworks, device: torch.device, dtype: torch.dtype, threads: int | None) -> None:
        self._networks, self._dtype = networks, dtype
        self._device = device
        self._model = networks.on(device, dtype)
        self._threads = threads
        self._pairs: HalfNeighbors | None = None
        self._graph: Graph | None = None

    def __reduce__(self) -> tuple[type[Autograd], tuple[Any, ...]]:
        return Autograd, (self._networks, self._device, self._dtype, self._threads)

    @torch.inference_mode(False)  # forces need autograd, even if the caller is in inference mode
    def __call__(self, system: Geometry, pairs: HalfNeighbors, *, pair_gradients: bool = False) -> SystemPrediction:
        """Compute a prediction as described in `Backend`."""
        if self._graph is None or pairs is not self._pairs:
            self._graph = make_graph(system, pairs).to(self._device)
            self._pairs = pairs
        else:  # same list: only positions and cell are sent to the device again
            self._graph = self._graph._replace(
                positions=torch.from_numpy(system.positions).to(self._device),
                cell=torch.from_numpy(system.cell)[None].to(self._device),
            )
        closest = closest_pair(system, pairs)
        with _threads(self._threads):
            prediction = predict(self._model, self._graph)
        assert prediction.forces is not None
        assert prediction.virial is not None
        assert prediction.pair_gradients is not None
        atoms = len(system.numbers)
        energies = prediction.energies.cpu().numpy().reshape(-1, atoms)
        gradients = None
        if pair_gradients:
            gradients = prediction.pair_gradients.cpu().numpy().reshape(len(energies), len(pairs.first), 3)
        return SystemPrediction(
            energies,
            prediction.forces.cpu().numpy().reshape(-1, atoms, 3),
            prediction.virial.cpu().numpy().reshape(-1, 3, 3),
            closest,
            gradients,
        )


@contextlib.contextmanager
def _threads(n: int | None) -> Iterator[None]:
    """Set PyTorch's process-wide number of threads and restore it afterwards; after a fork, leave it at one."""
    before = torch.get_num_threads()
    n = None if is_forked() else n
    if n is not None:
        torch.set_num_threads(n)
    try:
        yield
    finally:
        if n is not None:
            torch.set_num_threads(before)


def closest_pair(system: Geometry, pairs: HalfNeighbors) -> Closest:
    """Return the two atoms that are nearest to each other."""
    vectors = pair_vectors(system, pairs)
    squared = np.einsum("pk,pk->p", vectors, vectors)
    if not squared.size:
        return Closest(np.inf, 0, 0)
    p = int(np.argmin(squared))
    return Closest(float(np.sqrt(squared[p])), int(pairs.first[p]), int(pairs.second[p]))
