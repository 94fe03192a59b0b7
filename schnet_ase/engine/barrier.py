"""Threads of one call wait for each other inside machine code: asleep, they would take longer to wake than to work."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from schnet_ase.engine.jit import compiled

PATIENCE = 1_000_000
"""Looks at the counter before a thread lets others have its core: some tenths of a millisecond."""
AWAKE = 5
"""Times that patience for which a thread stays awake after a call, a millisecond or two: a step of dynamics follows."""


@intrinsic
def arrive(typing_context: Any, counter: Any) -> Any:
    """Add one to ``counter[0]``; what this thread wrote before is there for those who see it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        one = ir.Constant(ir.IntType(64), 1)
        builder.atomic_rmw("add", _first(context, builder, counter, arguments[0]), one, "seq_cst")
        return context.get_dummy_value()

    return types.void(counter), generate


@intrinsic
def arrived(typing_context: Any, counter: Any) -> Any:
    """``counter[0]`` as it is now."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_first(context, builder, counter, arguments[0]), "seq_cst", 8)

    return types.int64(counter), generate


@compiled
def all_arrived(counter, expected):
    """Whether the counter gets to `expected` within some patience."""
    for _ in range(PATIENCE):  # noqa: SIM110 - Numba knows no any()
        if arrived(counter) >= expected:
            return True
    return False


@compiled
def linger(counter, expected, begun):
    """Wait, awake, until the counter gets to `expected`, but not for long, nor beside another calculator's call."""
    others = arrived(begun)
    for _ in range(AWAKE * PATIENCE):
        if arrived(counter) >= expected or arrived(begun) != others:
            return


def _first(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    view = context.make_array(array_type)(context, builder, array)
    zero = context.get_constant(types.intp, 0)
    return cgutils.get_item_pointer(context, builder, array_type, view, [zero], wraparound=False)
