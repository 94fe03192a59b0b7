"""Fetch filter tables from memory while dense layers compute.

Several networks do not fit into the processor's caches together, so that each finds its tables in slow memory. A sum
over pairs needs many rows of them at once and would wait, whereas the dense layers leave memory idle. These therefore
fetch, line by line and each line once, the table that the next sum over pairs needs; on the way back, they fetch those
of the next network, as far as the outer caches.

Only calls of several networks on one thread do so.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schnet_ase.engine.jit import compiled
from schnet_ase.engine.simd import item, lanes, prefetch_far

LINES, SHARE, BLOCK, NEXT, START, END = range(6)
"""Elements of `Ahead.state`: the number of `lines`, how many of them a turn of a dense layer fetches, the size of a
block of a table, the next line, the start of its block, and the end of the last block."""
LAYERS = 3
"""Number of dense layers between two sums over pairs."""


class Ahead(NamedTuple):
    """What dense layers fetch while they compute."""

    table: NDArray[Any]
    """Filter tables, as in `Weights`."""
    lines: NDArray[np.int64]
    """As in `Work`."""
    state: NDArray[np.int64]
    """`Work.ahead`."""


@compiled
def list_lines(shape, system, work):
    """List the cache lines of a block of a filter table that the pairs of the call need; none for one network."""
    if shape.members == 1:
        return
    V = lanes(work.h)
    n = 0
    work.needed[:] = False
    for i in range(len(system.numbers)):
        for p in range(system.start[i], work.end[i]):
            row = work.row[p]
            if not work.needed[row // (6 * V)]:
                work.needed[row // (6 * V)] = True
                work.lines[n], work.lines[n + 1], work.lines[n + 2] = row, row + 2 * V, row + 4 * V
                n += 3
    blocks = shape.features // V
    turns = LAYERS * ((len(system.numbers) + 1) // 2) * (blocks // 4) * blocks
    work.ahead[LINES] = n
    work.ahead[SHARE] = (n * blocks + turns - 1) // turns
    work.ahead[BLOCK] = shape.rows * 6 * V


@compiled
def aim(shape, work, interaction, first):
    """Let the dense layers of all tiles, the first of which calls this, fetch the table of an interaction.

    Interactions count over all members; after the last one there is nothing to fetch.
    """
    if first == 0 and work.ahead[LINES] > 0:
        size = shape.features * shape.rows * 6
        work.ahead[NEXT] = 0
        work.ahead[START] = interaction * size
        work.ahead[END] = min(interaction + 1, shape.members * shape.layers) * size


@compiled
def fetch_share(ahead, line, start):
    """Fetch a share of the lines, from `line` of the block at `start` on; return the next line and its block."""
    for _ in range(ahead.state[SHARE]):
        prefetch_far(ahead.table, start + item(ahead.lines, line))
        line += 1
        if line == ahead.state[LINES]:
            line = 0
            start += ahead.state[BLOCK]
    return line, start
