"""Vector registers inside Numba functions: load, store and compute element by element.

LLVM vectorizes loops by itself only if it checks before each one that no two arrays overlap; for a loop over 64
features this costs as much as the loop. Here the vectors are explicit. A vector has 32 bytes: eight float32 or four
float64, one AVX register or two of NEON; LLVM splits or joins vectors for the machine.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

VECTOR_BYTES = 32


class Vector(types.Type):
    """The type of a vector of `element`."""

    def __init__(self, element: types.Float) -> None:
        self.element = element
        self.lanes = VECTOR_BYTES * 8 // element.bitwidth
        super().__init__(name=f"Vector({element})")


def _llvm(vector: Vector) -> ir.VectorType:
    element = ir.FloatType() if vector.element.bitwidth == 32 else ir.DoubleType()
    return ir.VectorType(element, vector.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        super().__init__(dmm, fe_type, _llvm(fe_type))


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    view = context.make_array(array_type)(context, builder, array)
    item = cgutils.get_item_pointer(context, builder, array_type, view, [index], wraparound=False)
    return builder.bitcast(item, _llvm(Vector(array_type.dtype)).as_pointer())


@intrinsic
def lanes(typing_context: Any, array: Any) -> Any:
    """Return the number of elements of `array` in one vector, as a constant, which ``array.itemsize`` is not for
    LLVM."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.intp, Vector(array.dtype).lanes)

    return types.intp(array), generate


@intrinsic
def item(typing_context: Any, array: Any, index: Any) -> Any:
    """Return ``array[index]`` without the test for a negative index."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(array)(context, builder, arguments[0])
        index = [context.cast(builder, arguments[1], signature.args[1], types.intp)]
        return builder.load(cgutils.get_item_pointer(context, builder, array, view, index, wraparound=False))

    return array.dtype(array, index), generate


@intrinsic
def load(typing_context: Any, array: Any, index: Any) -> Any:
    """Load the vector that starts at ``array[index]`` of a contiguous one-dimensional array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = builder.load(_pointer(context, builder, array, *arguments))
        vector.align = array.dtype.bitwidth // 8
        return vector

    return Vector(array.dtype)(array, types.intp), generate


@intrinsic
def store(typing_context: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write `vector` to ``array[index:]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, array, *arguments[:2])
        builder.store(arguments[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Fetch the cache line of ``array[index]`` without waiting; an index beyond the end does no harm."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _fetch(context, builder, _pointer(context, builder, array, *arguments), 3)

    return types.void(array, types.intp), generate


@intrinsic
def prefetch_far(typing_context: Any, array: Any, index: Any) -> Any:
    """Fetch as `prefetch` does, but only into the second cache: what is needed first stays in the first."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _fetch(context, builder, _pointer(context, builder, array, *arguments), 2)

    return types.void(array, types.intp), generate


@intrinsic
def splat(typing_context: Any, scalar: Any) -> Any:
    """Return the vector whose elements are all `scalar`."""
    vector = Vector(scalar)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        empty = ir.Constant(_llvm(vector), ir.Undefined)
        first = builder.insert_element(empty, arguments[0], ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.lanes), [0] * vector.lanes)
        return builder.shuffle_vector(first, empty, zeros)

    return vector(scalar), generate


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Return ``a * b + c``, in one instruction if the machine has it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.call(_function(builder, "fmuladd", a, 3), arguments)

    return a(a, b, c), generate


@intrinsic
def total(typing_context: Any, a: Any) -> Any:
    """Return the sum of a vector's elements, added half to half."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (vector,), lanes = arguments, a.lanes
        while lanes > 1:
            lanes //= 2
            indices = ir.VectorType(ir.IntType(32), lanes)
            low = builder.shuffle_vector(vector, vector, ir.Constant(indices, list(range(lanes))))
            high = builder.shuffle_vector(vector, vector, ir.Constant(indices, list(range(lanes, 2 * lanes))))
            vector = builder.fadd(low, high)
        return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))

    return a.element(a), generate


@intrinsic
def absolute(typing_context: Any, a: Any) -> Any:
    """Return ``|a|``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.call(_function(builder, "fabs", a, 1), arguments)

    return a(a), generate


@intrinsic
def maximum(typing_context: Any, a: Any, b: Any) -> Any:
    """Return the larger of each two elements, and `a` where that is NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", *arguments), arguments[1], arguments[0])

    return a(a, b), generate


@intrinsic
def where_negative(typing_context: Any, condition: Any, a: Any, b: Any) -> Any:
    """Return elements of `a` where those of `condition` are below zero, otherwise of `b`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zero = ir.Constant(_llvm(condition), [0.0] * condition.lanes)
        return builder.select(builder.fcmp_ordered("<", arguments[0], zero), *arguments[1:])

    return a(condition, a, b), generate


@intrinsic
def times_power_of_two(typing_context: Any, a: Any, n: Any) -> Any:
    """Return ``a * 2**k`` for the integers k in the last bits of `n`, by adding them to the exponents of `a`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = a.element.bitwidth
        integers = ir.VectorType(ir.IntType(bits), a.lanes)
        mantissa = ir.Constant(integers, [23 if bits == 32 else 52] * a.lanes)
        value, k = (builder.bitcast(argument, integers) for argument in arguments)
        return builder.bitcast(builder.add(value, builder.shl(k, mantissa)), _llvm(a))

    return a(a, n), generate


def _fetch(context: Any, builder: Any, place: Any, level: int) -> Any:
    """Fetch the cache line of an address into the caches from a level on, of which 3 is the nearest."""
    pointer, integer = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [pointer, integer, integer, integer])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    to_read, where, data = (ir.Constant(integer, value) for value in (0, level, 1))
    builder.call(function, [builder.bitcast(place, pointer), to_read, where, data])
    return context.get_dummy_value()


def polynomial(coefficients: Sequence[float], terms_in_single: int) -> Any:
    """Make the function :math:`\\sum_n c_n x^n` of a vector x; float32 uses only the first `terms_in_single` terms."""

    @intrinsic
    def evaluate(typing_context: Any, x: Any) -> Any:
        terms = coefficients[:terms_in_single] if x.element.bitwidth == 32 else coefficients

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value, *others = (ir.Constant(_llvm(x), [c] * x.lanes) for c in reversed(terms))
            for c in others:
                value = builder.call(_function(builder, "fmuladd", x, 3), [value, arguments[0], c])
            return value

        return x(x), generate

    return evaluate


def _function(builder: Any, name: str, vector: Vector, arguments: int) -> Any:
    """Return LLVM's own function `name` of `arguments` vectors."""
    kind = ir.FunctionType(_llvm(vector), [_llvm(vector)] * arguments)
    return cgutils.get_or_insert_function(
        builder.module, kind, f"llvm.{name}.v{vector.lanes}f{vector.element.bitwidth}"
    )


def _operator(symbol: Any, instruction: str) -> None:
    @type_callable(symbol)
    def type_of_result(context: Any) -> Any:
        return lambda a, b: a if isinstance(a, Vector) and a == b else None

    @lower_builtin(symbol, Vector, Vector)
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(builder, instruction)(*arguments, flags=("contract", "nsz"))


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")
_operator(operator.truediv, "fdiv")
