r"""Interpolate the rows of a table at many places, as operators that PyTorch can differentiate any number of times.

Pair p takes eight neighbouring rows of a table C from row :math:`s_p` on, with weights :math:`w_{pj}`. The sum

.. math:: T = \sum_{p, j, f} w_{pj} \, C_{s_p + j, f} \, g_{pf}

is linear in each of the weights, the table and a gradient g. Its derivatives with respect to g, C and w are the three
operators below, and the derivatives of each of them are the other two. On a CPU, PyTorch's own operators would add each
number to the table's gradient by itself; here vectors are added.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from schnet_ase.engine.jit import compiled_once_with_reordered_sums

POINTS = 8
"""Number of rows that a pair takes."""


@torch.library.custom_op("schnet_ase::interpolate", mutates_args=(), device_types="cpu")
def interpolate(table: Tensor, weights: Tensor, start: Tensor) -> Tensor:
    """Return the weighted sums of rows.

    Parameters
    ----------
    table
        (K, F).
    weights
        (P, POINTS).
    start
        (P,) int64, the first row of each pair.

    Returns
    -------
    Tensor
        (P, F).
    """
    out = table.new_empty(len(start), table.shape[1])
    _interpolate(*_arrays(table, weights, start, out))
    return out


@torch.library.custom_op("schnet_ase::spread", mutates_args=(), device_types="cpu")
def spread(weights: Tensor, start: Tensor, values: Tensor, rows: int) -> Tensor:
    """Return the gradient (rows, F) of the table for the gradient `values` (P, F) of `interpolate`."""
    out = values.new_zeros(rows, values.shape[1])
    _spread(*_arrays(weights, start, values, out))
    return out


@torch.library.custom_op("schnet_ase::project", mutates_args=(), device_types="cpu")
def project(table: Tensor, start: Tensor, values: Tensor) -> Tensor:
    """Return the gradient (P, POINTS) of the weights for the gradient `values` (P, F) of `interpolate`."""
    out = values.new_empty(len(start), POINTS)
    _project(*_arrays(table, start, values, out))
    return out


def _arrays(*tensors: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.detach().contiguous().numpy() for tensor in tensors)


@interpolate.register_fake
def _(table: Tensor, weights: Tensor, start: Tensor) -> Tensor:
    return table.new_empty(start.shape[0], table.shape[1])


@spread.register_fake
def _(weights: Tensor, start: Tensor, values: Tensor, rows: int) -> Tensor:
    return values.new_empty(rows, values.shape[1])


@project.register_fake
def _(table: Tensor, start: Tensor, values: Tensor) -> Tensor:
    return values.new_empty(start.shape[0], POINTS)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])


def _of_interpolate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    table, weights, start = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    return (
        spread(weights, start, gradient, table.shape[0]) if wanted[0] else None,
        project(table, start, gradient) if wanted[1] else None,
        None,
    )


def _of_spread(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    weights, start, values = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    return (
        project(gradient, start, values) if wanted[0] else None,
        None,
        interpolate(gradient, weights, start) if wanted[2] else None,
        None,
    )


def _of_project(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    table, start, values = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    return (
        spread(gradient, start, values, table.shape[0]) if wanted[0] else None,
        None,
        interpolate(table, gradient, start) if wanted[2] else None,
    )


interpolate.register_autograd(_of_interpolate, setup_context=_keep)
spread.register_autograd(_of_spread, setup_context=_keep)
project.register_autograd(_of_project, setup_context=_keep)


@compiled_once_with_reordered_sums
def _interpolate(table, weights, start, out):  # type: ignore[no-untyped-def]
    for p in range(len(start)):
        k = start[p]
        w0, w1, w2, w3 = weights[p, 0], weights[p, 1], weights[p, 2], weights[p, 3]
        w4, w5, w6, w7 = weights[p, 4], weights[p, 5], weights[p, 6], weights[p, 7]
        for f in range(out.shape[1]):
            lower = w0 * table[k, f] + w1 * table[k + 1, f] + w2 * table[k + 2, f] + w3 * table[k + 3, f]
            upper = w4 * table[k + 4, f] + w5 * table[k + 5, f] + w6 * table[k + 6, f] + w7 * table[k + 7, f]
            out[p, f] = lower + upper


@compiled_once_with_reordered_sums
def _spread(weights, start, values, out):  # type: ignore[no-untyped-def]
    for p in range(len(start)):
        for j in range(POINTS):
            weight, row = weights[p, j], start[p] + j
            for f in range(out.shape[1]):
                out[row, f] += weight * values[p, f]


@compiled_once_with_reordered_sums
def _project(table, start, values, out):  # type: ignore[no-untyped-def]
    for p in range(len(start)):
        for j in range(POINTS):
            row = start[p] + j
            total = values[p, 0] * table[row, 0]
            for f in range(1, values.shape[1]):
                total += values[p, f] * table[row, f]
            out[p, j] = total
