"""Stacked SchNets evaluated by the compiled kernel: its memory, threads and calls."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from schnet_ase.engine.ahead import END
from schnet_ase.engine.gradients import add_pair_gradients
from schnet_ase.engine.kernel import DONE, n_stages, run_stages
from schnet_ase.engine.layout import TILE, Output, Shape, System, Weights, Work, zeros_on_line
from schnet_ase.engine.simd import VECTOR_BYTES
from schnet_ase.engine.team import Team
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.geometry.neighbors import HalfNeighbors, pair_vectors
from schnet_ase.geometry.system import Geometry
from schnet_ase.inference.backend import Closest, SystemPrediction
from schnet_ase.inference.networks import FixedNetworks
from schnet_ase.networks import SchNetConfig

COVERED = ("ssp", "silu")
"""Activations that the kernel supports. Inside the filter networks any is allowed, since filters are tabulated."""
THREADS_FROM_ATOMS = 300
"""Number of atoms times members from which several threads are faster than one."""
BEGUN = np.zeros(1, np.int64)
"""Number of multi-threaded calls that this process has begun."""


def why_not_compiled(config: SchNetConfig) -> str | None:
    """Return the setting of `config` that the kernel does not support; None if it supports all."""
    if config.activation not in COVERED:
        return f"activation {config.activation!r}"
    if config.readout_activation not in (None, *COVERED):
        return f"readout_activation {config.readout_activation!r}"
    if config.norm is not None:
        return f"norm {config.norm!r}"
    return None


class CompiledSchNet:
    """M networks of one config as one function of a geometry; a `Backend`.

    Parameters
    ----------
    networks
        Members; `why_not_compiled` says which configs are supported.
    dtype
        ``"float32"`` or ``"float64"``.
    threads
        Number of threads of a call; None: one, or PyTorch's number of threads if the system is large enough to gain.

    Raises
    ------
    TableError
        The filters cannot be tabulated.
    """

    def __init__(self, networks: FixedNetworks, dtype: str, threads: int | None = None) -> None:
        self.threads = threads
        self._networks, self._dtype = networks, dtype
        self._shape, self._weights = networks.laid_out(dtype)
        self._pairs: HalfNeighbors | None = None
        self._system: System | None = None
        self._work: Work | None = None
        self._team: Team | None = None

    def __reduce__(self) -> tuple[type[CompiledSchNet], tuple[Any, ...]]:
        # Memory and threads belong to this process and this calculator.
        return CompiledSchNet, (self._networks, self._dtype, self.threads)

    def __call__(self, geometry: Geometry, pairs: HalfNeighbors, *, pair_gradients: bool = False) -> SystemPrediction:
        """Compute a prediction as described in `Backend`."""
        if pairs is not self._pairs:
            self._take(geometry, pairs)
        system, work = self._system, self._work
        assert system is not None
        assert work is not None
        members, atoms = self._shape.members, len(system.numbers)
        output = Output(
            np.empty((members, atoms)), np.empty((members, atoms, 3)), np.empty((members, 3, 3)), np.empty(3)
        )
        arguments = _Arguments(
            self._shape, self._weights, system, work, output, geometry.positions, geometry.cell, int(work.arrived[0])
        )
        self._run(arguments, system.threads)
        distance, first, second = output.closest.tolist()
        gradients = None
        if pair_gradients:
            gradients = np.zeros((members, len(pairs.first), 3))
            add_pair_gradients(self._shape, self._weights, system, work, pair_vectors(geometry, pairs), gradients)
        return SystemPrediction(*output[:3], Closest(distance, int(first), int(second)), gradients)

    def _run(self, arguments: _Arguments, threads: int) -> None:
        team = self._team
        try:
            if threads > 1:
                if team is None or not team.serves(threads):
                    team = self._team = Team(threads)
                team.call(partial(_run_thread, arguments, None), threads)
            _run_thread(arguments, team, 0)
        except BaseException:
            # After Ctrl-C the other threads would wait for this one for ever. Let them run to the end, in memory that
            # is not used again.
            arguments.work.arrived[0] += 1 << 40
            self._pairs = self._work = None
            raise

    def _take(self, geometry: Geometry, pairs: HalfNeighbors) -> None:
        """Prepare a new list of pairs and its memory for the kernel."""
        atoms = len(geometry.numbers)
        start = np.searchsorted(pairs.first, np.arange(atoms + 1)).astype(np.int64)
        threads = self.threads
        if threads is None:
            large = atoms * self._shape.members >= THREADS_FROM_ATOMS
            threads = torch.get_num_threads() if large else 1
        threads = min(threads, atoms)
        members, units = self._shape.members, self._shape.features // (2 * VECTOR_BYTES // self._weights.dense.itemsize)
        tile, parts, ranges = TILE, 1, 1
        if threads > 1:
            # Each thread gets several work items per stage, so that none waits long for a slower one: four for the
            # layers, up to six for sums over pairs (fewer if that would leave many partial sums to add), two or three
            # for the forces.
            tile = min(TILE, max(4, math.ceil(members * atoms / (4 * threads))))
            parts = math.ceil(max(1, min(6, 4 * members * units // threads)) * threads / (members * units))
            ranges = math.ceil(max(6, 2 * threads) / members)
        self._system = System(
            geometry.numbers.astype(np.int64),
            start,
            pairs.second.astype(np.int32),
            pairs.shifts.astype(np.float64) if pairs.shifts.any() else np.zeros((0, 3)),
            np.append(np.arange(0, atoms, tile), atoms),
            _equal_parts(start, parts),
            _equal_parts(start, ranges),
            threads,
            1 if threads == 1 else units,
        )
        self._work = self._memory(self._system, len(pairs.second))
        self._pairs = pairs

    def _memory(self, system: System, pairs: int) -> Work:
        atoms, threads, old = len(system.numbers), system.threads, self._work
        shape, dtype = self._shape, self._weights.dense.dtype
        M, L, F = shape.members, shape.layers, shape.features
        claimed = n_stages.py_func(shape) * threads
        if old is not None and (len(old.end), len(old.claimed)) == (atoms, claimed) and len(old.second) >= pairs:
            return old
        pairs += pairs // 8  # spare room, since the next list may be a little longer

        def real(*sizes: int) -> NDArray[Any]:
            return zeros_on_line(math.prod(sizes), dtype)

        return Work(
            end=np.zeros(atoms, np.int64),
            second=np.zeros(pairs, np.int32),
            row=np.zeros(pairs, np.int32),
            u=real(pairs),
            direction=np.zeros((pairs, 3)),
            distance=np.zeros(pairs),
            needed=np.zeros(shape.rows, np.bool_),
            lines=np.zeros(3 * shape.rows, np.int64),
            ahead=np.zeros(END + 1, np.int64),
            slope=real(system.slope_parts, M, pairs),
            x=real(M, F, atoms),
            h=real(M, L, F, atoms),
            g=real(M, F, atoms),
            sums=real(len(system.parts) - 1, M, F, atoms),
            sigmoid=real(M, L, F, atoms),
            tile=real(threads, 2, max(F, shape.hidden), TILE),
            force_sums=np.zeros((len(system.ranges) - 1, M, atoms, 3)),
            virial_sums=np.zeros((len(system.ranges) - 1, M, 3, 3)),
            repulsion_sums=np.zeros((len(system.ranges) - 1, atoms) if len(self._weights.reach) else (0, 0)),
            closest=np.zeros((len(system.tiles) - 1, 3)),
            claimed=np.zeros(claimed, np.int64),
            arrived=np.zeros(1, np.int64) if old is None else old.arrived,
            begun=BEGUN,
        )


class _Arguments(NamedTuple):
    """Arguments of `run_stages` that are the same for all threads."""

    shape: Shape
    weights: Weights
    system: System
    work: Work
    output: Output
    positions: Floats
    cell: Floats
    before: int


def _run_thread(arguments: _Arguments, team: Team | None, thread: int) -> None:
    stage = run_stages(0, *arguments, thread)
    while stage != DONE:
        # There are fewer cores than threads: let the others run. Check them too, as a failed one would never arrive.
        time.sleep(0.0)
        if team is not None:
            team.check()
        stage = run_stages(stage, *arguments, thread)


def _equal_parts(start: Integers, parts: int) -> NDArray[np.int64]:
    """Return the first atom of each part, and the end, such that parts have equally many pairs.

    In a half list, early atoms have more pairs than late ones.
    """
    first = np.searchsorted(start, start[-1] * np.arange(parts) / parts)
    return np.append(first, len(start) - 1).astype(np.int64)
