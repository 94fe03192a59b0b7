"""Synchronize the threads of a call in machine code, because waking a sleeping thread takes longer than its work."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from schnet_ase.engine.jit import compiled

PATIENCE = 2_000_000
"""Number of times that a thread reads the counter before it yields its core: about half a millisecond."""
AWAKE = 3
"""How many times that patience a thread stays awake after a call: a millisecond or two, until the next step of
dynamics."""


@intrinsic
def add_one(typing_context: Any, counters: Any, index: Any) -> Any:
    """Add one to ``counters[index]`` and return its former value, which no other thread gets.

    Threads that see the new count also see everything that this thread wrote before.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, counters, arguments[0], arguments[1])
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(counters, types.int64), generate


@intrinsic
def count(typing_context: Any, counters: Any, index: Any) -> Any:
    """Return the current value of ``counters[index]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, counters, arguments[0], arguments[1])
        return builder.load_atomic(place, "seq_cst", 8)

    return types.int64(counters, types.int64), generate


@compiled
def take(claimed, stage, items, threads, thread):
    """Return the next item of a stage for this thread, or -1 if none is left.

    Each thread has a row of items of its own, the same in every call, so that their memory stays in its cache. When
    these are done, it takes items from the rows of others, because a thread on a slow or busy core would keep all
    waiting.
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
    """Return whether the counter reaches `expected` within `PATIENCE`."""
    for _ in range(PATIENCE):  # noqa: SIM110 - Numba knows no any()
        if count(counter, 0) >= expected:
            return True
    return False


@compiled
def linger(counter, expected, begun):
    """Wait awake until the counter reaches `expected`, but not for long, and not during another calculator's call."""
    others = count(begun, 0)
    for _ in range(AWAKE * PATIENCE):
        if count(counter, 0) >= expected or count(begun, 0) != others:
            return


def _place(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    view = context.make_array(array_type)(context, builder, array)
    return cgutils.get_item_pointer(context, builder, array_type, view, [index], wraparound=False)
