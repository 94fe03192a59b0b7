"""Threads of one call wait for each other inside machine code: asleep, they would take longer to wake than to work."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from schnet_ase.engine.jit import compiled

PATIENCE = 2_000_000
"""Looks at the counter before a thread lets others have its core: half a millisecond or so."""
AWAKE = 3
"""Times that patience for which a thread stays awake after a call, a millisecond or two: a step of dynamics follows."""


@intrinsic
def add_one(typing_context: Any, counters: Any, index: Any) -> Any:
    """Add one to ``counters[index]``; what it was before, which no other thread is given.

    What this thread wrote before is there for those who see the count.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, counters, arguments[0], arguments[1])
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(counters, types.int64), generate


@intrinsic
def count(typing_context: Any, counters: Any, index: Any) -> Any:
    """``counters[index]`` as it is now."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, counters, arguments[0], arguments[1])
        return builder.load_atomic(place, "seq_cst", 8)

    return types.int64(counters, types.int64), generate


@compiled
def take(claimed, stage, items, threads, thread):
    """The next of a stage's items that is for this thread, or -1 if none is left.

    Each thread has a row of them that is its own, the same in every call, so that their memory stays in its cache. With
    that done it takes from the rows of others: one on a slower core, or a busy one, would keep all waiting.
    """
    for k in range(threads):
        row = (thread + k) % threads
        first, last = items * row // threads, items * (row + 1) // threads
        if first + count(claimed, stage * threads + row) < last:
            item = first + add_one(claimed, stage * threads + row)
            if item < last:
                return item
    return -1


@compiled
def all_arrived(counter, expected):
    """Whether the counter gets to `expected` within some patience."""
    for _ in range(PATIENCE):  # noqa: SIM110 - Numba knows no any()
        if count(counter, 0) >= expected:
            return True
    return False


@compiled
def linger(counter, expected, begun):
    """Wait, awake, until the counter gets to `expected`, but not for long, nor beside another calculator's call."""
    others = count(begun, 0)
    for _ in range(AWAKE * PATIENCE):
        if count(counter, 0) >= expected or count(begun, 0) != others:
            return


def _place(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    view = context.make_array(array_type)(context, builder, array)
    return cgutils.get_item_pointer(context, builder, array_type, view, [index], wraparound=False)
