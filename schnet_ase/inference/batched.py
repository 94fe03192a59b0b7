"""Evaluate a network on many systems, several of which share a call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from schnet_ase.errors import StructureError
from schnet_ase.geometry.arrays import Integers
from schnet_ase.geometry.neighbors import HalfNeighbors, NeighborCache, pair_vectors
from schnet_ase.geometry.system import Geometry, cell_volume
from schnet_ase.inference.backend import Closest, SystemPrediction
from schnet_ase.inference.checks import refuse_coincident
from schnet_ase.inference.evaluator import Evaluator, Results
from schnet_ase.inference.networks import FixedNetworks

AT_ONCE = 1 << 14
"""Number of pairs times members from which systems get a call of their own. Ethanols that share a call take half of the
time of single ones; from 16 on, more of them gain nothing. Every thread finds work in a call of this size."""


class _Joined(NamedTuple):
    """Several systems as one, without pairs between them."""

    lists: list[HalfNeighbors]
    """The pairs of each system."""
    pairs: HalfNeighbors
    """All pairs; translations are in Å, since systems have cells of their own."""
    atoms: Integers
    """(B + 1,) first atom of each system, and their number."""
    ends: Integers
    """(B + 1,) first pair of each system, and their number."""


class BatchEvaluator:
    """A network bound to a device, a dtype and an engine, for many systems of any kind and size at once.

    Systems are joined until a call is large enough for all threads of the engine.

    Parameters
    ----------
    networks, device, dtype, engine, threads
        See `Evaluator`.
    skin
        None: neighbour lists are made anew in each call. A number, in Å: the lists are kept by the position of a system
        in the sequence, as dynamics of many systems needs it; see `NeighborCache`.

    Raises
    ------
    SchNetError, ValueError
        As in `Evaluator`.
    """

    def __init__(
        self,
        networks: FixedNetworks,
        *,
        device: str | None,
        dtype: str,
        engine: str,
        threads: int | None,
        skin: float | None,
    ) -> None:
        self.evaluator = Evaluator(
            networks, device=device, dtype=dtype, engine=engine, skin=skin or 0.0, threads=threads
        )
        self._members = len(networks.models)
        self._skin = skin
        self._kept: list[NeighborCache] = []
        self._last: _Joined | None = None

    def __call__(self, systems: Sequence[Geometry]) -> Iterator[Results]:
        """Yield the results of each system in order.

        Raises
        ------
        StructureError
            As in `Evaluator`; the message begins with the number of the system.
        """
        begun, size = 0, 0
        lists: list[HalfNeighbors] = []
        for n, system in enumerate(systems):
            try:
                self.evaluator.check(system)
                pairs = self._cache(n).get(system)
            except StructureError as error:
                raise StructureError(f"structure {n}: {error}") from error
            cost = len(pairs.first) * self._members
            if lists and size + cost > AT_ONCE:
                yield from self._evaluate(begun, systems[begun:n], lists)
                begun, lists, size = n, [], 0
            lists.append(pairs)
            size += cost
        if lists:
            yield from self._evaluate(begun, systems[begun:], lists)

    def _cache(self, n: int) -> NeighborCache:
        if self._skin is None:
            return NeighborCache(self.evaluator.cutoff, 0.0, self.evaluator.search)
        if n == len(self._kept):
            self._kept.append(NeighborCache(self.evaluator.cutoff, self._skin, self.evaluator.search))
        return self._kept[n]

    def _evaluate(self, begun: int, systems: Sequence[Geometry], lists: list[HalfNeighbors]) -> Iterator[Results]:
        """Yield the results of systems that share a call, the first of which is number `begun`."""
        with self.evaluator.announced():
            predictions = self._alone(systems[0], lists[0]) if len(systems) == 1 else self._together(systems, lists)
        for n, (system, pairs, predicted) in enumerate(zip(systems, lists, predictions, strict=True), begun):
            try:
                refuse_coincident(predicted.closest)
                yield self.evaluator.finish(system, pairs, predicted.energies, predicted.forces, predicted.virial)
            except StructureError as error:
                raise StructureError(f"structure {n}: {error}") from error

    def _alone(self, system: Geometry, pairs: HalfNeighbors) -> list[SystemPrediction]:
        return [self.evaluator.backend(system, pairs)]

    def _together(self, systems: Sequence[Geometry], lists: list[HalfNeighbors]) -> list[SystemPrediction]:
        joined = self._join(systems, lists)
        whole = _geometry(systems, joined.pairs)
        # The virial of the call is that of all systems; each gets its own from the gradients of its pairs.
        by_pair = any(cell_volume(system.cell) for system in systems)
        energies, forces, _, closest, gradients = self.evaluator.backend(whole, joined.pairs, pair_gradients=by_pair)
        virials = np.zeros((len(systems), self._members, 3, 3))
        if gradients is not None:
            vectors = pair_vectors(whole, joined.pairs)
            for b, (first, end) in enumerate(pairwise(joined.ends)):
                virials[b] = np.einsum("pa,mpb->mab", vectors[first:end], gradients[:, first:end])
            virials = 0.5 * (virials + virials.swapaxes(2, 3))
        predictions = []
        for b, (first, end) in enumerate(pairwise(joined.atoms)):
            near = Closest(closest.distance, closest.first - first, closest.second - first)
            if not first <= closest.first < end:
                near = Closest(np.inf, 0, 0)
            predictions.append(SystemPrediction(energies[:, first:end], forces[:, first:end], virials[b], near))
        return predictions

    def _join(self, systems: Sequence[Geometry], lists: list[HalfNeighbors]) -> _Joined:
        last = self._last
        if last is not None and list(map(id, last.lists)) == list(map(id, lists)):
            return last  # the backend, too, then keeps what it derived from the list
        atoms = np.cumsum([0, *(len(system.numbers) for system in systems)])
        ends = np.cumsum([0, *(len(pairs.first) for pairs in lists)])
        pairs = HalfNeighbors(
            np.concatenate([pairs.first + first for pairs, first in zip(lists, atoms, strict=False)]),
            np.concatenate([pairs.second + first for pairs, first in zip(lists, atoms, strict=False)]),
            np.concatenate([pairs.shifts @ system.cell for pairs, system in zip(lists, systems, strict=True)]),
        )
        joined = _Joined(lists, pairs, atoms, ends)
        self._last = joined if self._skin is not None else None
        return joined


def _geometry(systems: Sequence[Geometry], pairs: HalfNeighbors) -> Geometry:
    return Geometry(
        np.concatenate([system.numbers for system in systems]),
        np.concatenate([system.positions for system in systems]),
        np.eye(3),
        np.full(3, pairs.shifts.any()),
    )
