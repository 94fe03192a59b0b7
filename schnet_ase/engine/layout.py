"""The flat arrays on which the compiled engine computes, with their shapes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

TILE = 32
"""Largest number of atoms that pass the dense layers together, so that what lies between two layers stays in the
fastest cache."""
LINE = 64
"""Bytes of a cache line."""


def zeros_on_line(size: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return (size,) zeros that begin at a cache line.

    Each vector of the kernel then lies in one line. NumPy's own arrays begin at any sixteenth byte, so that every other
    vector may lie in two lines, which takes longer to load and to store.
    """
    count = size * np.dtype(dtype).itemsize
    memory = np.zeros(count + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + count].view(dtype)


def on_line(array: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of `array` that begins at a cache line."""
    copy = zeros_on_line(array.size, array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class Shape(NamedTuple):
    """Sizes of the loops; `features` and `hidden` are padded to four whole vectors."""

    members: int
    layers: int
    features: int
    hidden: int
    elements: int
    rows: int
    """Rows of a filter table."""
    silu: bool
    """Whether the activation is SiLU; otherwise it is the shifted softplus."""
    readout_silu: bool
    """Whether the activation of the readout is SiLU."""


class Weights(NamedTuple):
    """Weights of all members, flat and contiguous: M members, L layers, F features, H hidden, V lanes of a vector."""

    embedding: NDArray[Any]
    """(M, elements, F)."""
    embedding_in: NDArray[Any]
    """(M, elements, F) ``h`` of the first interaction, which depends only on the element."""
    table: NDArray[Any]
    """(M, L, F / V, rows, 6, V) see `FilterTable`."""
    dense: NDArray[Any]
    """(M, 6 L - 2, F / 4V, F, 4V) matrices by blocks of columns, in the order of their use: B, C and the next A of each
    interaction, then the transposes from the last C to the first B. The first A is in `embedding_in`."""
    bias: NDArray[Any]
    """(M, L, 3, F) a, b, c."""
    readout: NDArray[Any]
    """(M, H / 4V, F, 4V) first readout layer, by blocks of columns."""
    readout_transposed: NDArray[Any]
    """(M, F / 4V, H, 4V)."""
    readout_bias: NDArray[Any]
    """(M, H)."""
    output: NDArray[Any]
    """(M, H) second readout layer."""
    output_bias: NDArray[np.float64]
    """(M,)."""
    zeros: NDArray[Any]
    """(max(F, H),) the bias of a layer without one."""
    scale: NDArray[np.float64]
    """(M,) eV."""
    reference: NDArray[np.float64]
    """(M, elements) eV."""
    width: float
    """Width of a table's interval, Å."""
    cutoff: float
    """Å; infinite if every pair counts."""
    reach: NDArray[np.float64]
    """(elements,) what an atom adds to the reach of the repulsion of `schnet_ase.priors.zbl`, Å; (0,) without it."""
    screening: NDArray[np.float64]
    """(elements,) what it adds to the screening, Å⁻¹; or (0,)."""

    def on_lines(self) -> Weights:
        """Return a copy in which every array begins at a cache line."""
        return Weights._make(on_line(part) if isinstance(part, np.ndarray) else part for part in self)


class System(NamedTuple):
    """The atoms, and every pair that may be near: a half neighbour list with a skin."""

    numbers: NDArray[np.int64]
    """(N,)."""
    start: NDArray[np.int64]
    """(N + 1,) index of each atom's first pair in the list."""
    listed: NDArray[np.int32]
    """(P,) second atom of each pair."""
    shifts: NDArray[np.float64]
    """(P, 3) lattice translations of the second atom; (0, 3) if there are none."""
    tiles: NDArray[np.int64]
    """(B + 1,) first atoms of the tiles, which have at most `TILE` atoms each."""
    parts: NDArray[np.int64]
    """(R + 1,) first atoms of the parts, with equally many pairs each, into which sums over pairs are cut."""
    ranges: NDArray[np.int64]
    """(Q + 1,) first atoms of the parts into which forces are cut."""
    threads: int
    """T, the number of threads that share a call."""
    slope_parts: int
    """U: one, or if threads share a call the number of units of two blocks of features."""


class Work(NamedTuple):
    """Memory that all calls use; flat, with B, Q, R, T and U as in `System`."""

    end: NDArray[np.int64]
    """(N,) end of each atom's pairs that are within the cutoff."""
    second: NDArray[np.int32]
    """(P,) second atom of a pair within the cutoff."""
    row: NDArray[np.int32]
    """(P,) start of the row in a block of the filter table."""
    u: NDArray[Any]
    """(P,) position in the row's interval, 0 to 1."""
    direction: NDArray[np.float64]
    """(P, 3) pair vectors over their length."""
    distance: NDArray[np.float64]
    """(P,) Å."""
    needed: NDArray[np.bool_]
    """(rows,) whether a pair within the cutoff needs a row of the filter tables."""
    lines: NDArray[np.int64]
    """(3 rows,) where the cache lines of these rows are in a block of a filter table."""
    ahead: NDArray[np.int64]
    """(6,) how far the dense layers have fetched tables ahead; see `ahead.Ahead.state`."""
    slope: NDArray[Any]
    """(U, M, P) derivative of the energy with respect to the distance, in units of scale / width."""
    x: NDArray[Any]
    """(M, F / V, N, V) features; in the backward pass, the gradient with respect to them."""
    h: NDArray[Any]
    """(M, L, F / V, N, V)."""
    g: NDArray[Any]
    """(M, F / V, N, V)."""
    sums: NDArray[Any]
    """(R, M, F / V, N, V) sums over pairs."""
    sigmoid: NDArray[Any]
    """(M, L, F / V, N, V) slopes of the activations."""
    tile: NDArray[Any]
    """(T, 2, max(F, H), TILE) values between two layers."""
    force_sums: NDArray[np.float64]
    """(Q, M, N, 3)."""
    virial_sums: NDArray[np.float64]
    """(Q, M, 3, 3)."""
    repulsion_sums: NDArray[np.float64]
    """(Q, N) eV; (0, 0) for a model without."""
    closest: NDArray[np.float64]
    """(B, 3) smallest distance from an atom of each tile, and its two atoms."""
    claimed: NDArray[np.int64]
    """(stages, T) number of requests for an item of each thread's row, in each stage."""
    arrived: NDArray[np.int64]
    """(1,) number of stages that threads have finished, over all threads and calls, so that it never falls."""
    begun: NDArray[np.int64]
    """(1,) number of calls of all calculators that this process has begun."""


class Output(NamedTuple):
    """Results of a call."""

    energies: NDArray[np.float64]
    """(M, N) eV."""
    forces: NDArray[np.float64]
    """(M, N, 3) eV/Å."""
    virial: NDArray[np.float64]
    """(M, 3, 3) eV."""
    closest: NDArray[np.float64]
    """(3,) smallest distance, and its two atoms."""
