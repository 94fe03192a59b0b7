r"""A SchNet in training on a CPU, with the derivatives that its training needs written out.

The loss depends on energies and on the slopes :math:`s_p = \partial E / \partial r_p` of the energy with respect to
the distances of pairs, from which forces and virials follow. Backpropagation from the gradients :math:`a_i` of the loss
for the atoms' energies :math:`E_i`, and :math:`t_p` for the slopes, needs the gradient of

.. math::
    S(\theta) = \sum_i a_i E_i(\theta) + \sum_p t_p \frac{\partial E(\theta)}{\partial r_p} = \sum_i a_i E_i + \dot E

with respect to the weights, where :math:`\dot E` is the rate at which the energy changes while distances change at the
rates :math:`t_p` (Pearlmutter, Neural Computation 6, 147 (1994)). First the rate of every quantity follows from layer
to layer, then both are traced back. The gradients of :math:`\dot E` for the rates are those of E for the quantities,
from which the slopes were computed, so that there is less to do than automatic differentiation does.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from schnet_ase.geometry.graph import Graph, pair_vectors
from schnet_ase.inference.forces import Prediction, with_derivatives
from schnet_ase.networks import SchNet
from schnet_ase.networks.schnet import Interaction
from schnet_ase.training.step.convolutions import POINTS, convolve, convolve_rates, differentiate, differentiate_rates
from schnet_ase.training.step.filters import Places, TabulatedFilters

WHOLE_VECTORS = 8
"""Numbers of features must be multiples of this one."""


def can_write_out(model: SchNet) -> bool:
    """Return whether a network has only the parts whose derivatives are here."""
    config = model.config
    known = {config.activation, config.readout_activation or config.activation} <= {"ssp", "silu"}
    return known and config.norm is None and not config.dropout and config.n_features % WHOLE_VECTORS == 0


def predict_written_out(model: SchNet, filters: TabulatedFilters, graph: Graph) -> Prediction:
    """Compute what `predict` computes, to be differentiated once, with respect to the weights.

    Parameters
    ----------
    model
        Network for which `can_write_out` is true, on a CPU.
    filters
        Tables of its filters, which follow its weights.
    graph
        N atoms in B systems.

    Returns
    -------
    Prediction
        With all derivatives with respect to the geometry.
    """
    with torch.no_grad():
        vectors = pair_vectors(graph)
        distances = torch.linalg.vector_norm(vectors, dim=-1)
    config, (first, second) = model.config, graph.pairs
    pairs = _Pairs(filters.places(distances), _flat(first), _flat(second), config.n_features)
    weights = []
    for table, module in zip(filters.tables(), model.interactions, strict=True):
        block = cast("Interaction", module)
        bias_in = block.dense_in.bias if config.interaction_bias else table.new_zeros(config.n_features)
        others = (part for dense in (block.dense1, block.dense2) for part in (dense.weight, dense.bias))
        weights += [table, block.dense_in.weight, bias_in, *others]
    weights += [model.readout1.weight, model.readout1.bias, model.readout2.weight, model.readout2.bias]
    activations = config.activation, config.readout_activation or config.activation
    x = model.embedding(graph.numbers)
    outputs, slopes = _Network.apply(pairs, *activations, x, *weights)
    energies = outputs.double() * model.scale + model.reference[graph.numbers]
    gradients = vectors * (slopes.double() * model.scale / distances)[:, None]
    return with_derivatives(energies, gradients, vectors, graph)


class _Pairs(NamedTuple):
    """The pairs of a batch."""

    places: Places
    first: Any
    second: Any
    features: int

    def arguments(self, table: Tensor, *others: Any) -> tuple[Any, ...]:
        """Return the first arguments of a convolution; `others` are weights that it needs besides."""
        places = self.places
        return (_flat(table), places.weights, *others, places.start, self.first, self.second, self.features)


class _Block(NamedTuple):
    """The weights of an interaction, as `torch.nn.Linear` has them."""

    table: Tensor
    """(K, F) filters."""
    w_in: Tensor
    b_in: Tensor
    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor


class _Readout(NamedTuple):
    """The weights of the readout."""

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor


class _Curve(NamedTuple):
    """Values of an activation, and its first and second derivatives there."""

    value: Tensor
    slope: Tensor
    curvature: Tensor


class _Values(NamedTuple):
    """What an interaction computes, (N, F) each."""

    x: Tensor
    """Its input."""
    h: Tensor
    """Behind the first dense layer."""
    y: Tensor
    """Behind the convolution."""
    act: _Curve
    """Behind the second dense layer and the activation."""


class _Rates(NamedTuple):
    """The rates at which these values change, and that of the activation's argument `b`."""

    x: Tensor
    h: Tensor
    y: Tensor
    b: Tensor
    act: Tensor


class _Gradients(NamedTuple):
    """Gradients of the sum of all outputs for an interaction's residual and for its values."""

    out: Tensor
    act: Tensor
    b: Tensor
    y: Tensor
    h: Tensor


class _Network(torch.autograd.Function):
    """The outputs of the readout (N,), and the slopes (P,) of their sum with respect to the distances."""

    @staticmethod
    def forward(ctx: Any, pairs: _Pairs, act: str, readout_act: str, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        blocks, readout = _arranged(weights)
        values: list[_Values] = []
        for block in blocks:
            h = torch.addmm(block.b_in, x, block.w_in.T)
            y = torch.zeros_like(h)
            convolve(*pairs.arguments(block.table), _flat(h), _flat(y))
            curve = _curve(torch.addmm(block.b1, y, block.w1.T), act)
            values.append(_Values(x, h, y, curve))
            x = torch.addmm(block.b2, curve.value, block.w2.T) + x
        read = _curve(torch.addmm(readout.b1, x, readout.w1.T), readout_act)
        outputs = torch.addmm(readout.b2, read.value, readout.w2.T).squeeze(1)

        slopes = x.new_zeros(len(pairs.first))
        of_read = read.slope * readout.w2
        out = of_read @ readout.w1
        gradients: list[_Gradients] = []
        for block, value in zip(reversed(blocks), reversed(values), strict=True):
            of_act = out @ block.w2
            b = of_act * value.act.slope
            y = b @ block.w1
            h = torch.zeros_like(y)
            arguments = pairs.arguments(block.table, pairs.places.slopes)
            differentiate(*arguments, _flat(value.h), _flat(y), _flat(h), _flat(slopes))
            gradients.append(_Gradients(out, of_act, b, y, h))
            out = torch.addmm(out, h, block.w_in)
        ctx.pairs, ctx.blocks, ctx.readout = pairs, blocks, readout
        ctx.values, ctx.gradients = values, gradients[::-1]
        ctx.x, ctx.read, ctx.of_read = x, read, of_read
        return outputs, slopes

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_outputs: Tensor, of_slopes: Tensor) -> tuple[Tensor | None, ...]:
        readout: _Readout = ctx.readout
        read: _Curve = ctx.read
        changes = np.repeat(_flat(of_slopes), POINTS) * ctx.pairs.places.slopes
        rates, dx = _rates(ctx.pairs, changes, ctx.blocks, ctx.values)

        d_read = dx @ readout.w1.T
        of_value = of_outputs[:, None] * readout.w2
        before = torch.addcmul(of_value * read.slope, read.curvature * d_read, readout.w2.expand_as(d_read))
        of_readout = _Readout(
            before.T @ ctx.x + ctx.of_read.T @ dx,
            before.sum(dim=0),
            of_outputs[None] @ read.value + (read.slope * d_read).sum(dim=0, keepdim=True),
            of_outputs.sum(dim=0, keepdim=True),
        )
        of_x = before @ readout.w1

        of_weights: list[Tensor] = []
        for block, value, rate, gradient in zip(
            reversed(ctx.blocks), reversed(ctx.values), reversed(rates), reversed(ctx.gradients), strict=True
        ):
            act = value.act
            of_act = of_x @ block.w2
            of_b = torch.addcmul(of_act * act.slope, act.curvature * rate.b, gradient.act)
            of_y = of_b @ block.w1
            of_h, of_table = torch.zeros_like(of_y), torch.zeros_like(block.table)
            differentiate_rates(
                *ctx.pairs.arguments(block.table, changes),
                *(_flat(v) for v in (value.h, rate.h, of_y, gradient.y, of_h, of_table)),
            )
            of_block = _Block(
                of_table,
                torch.addmm(of_h.T @ value.x, gradient.h.T, rate.x),
                of_h.sum(dim=0),
                torch.addmm(of_b.T @ value.y, gradient.b.T, rate.y),
                of_b.sum(dim=0),
                torch.addmm(of_x.T @ act.value, gradient.out.T, rate.act),
                of_x.sum(dim=0),
            )
            of_weights[:0] = of_block
            of_x = torch.addmm(of_x, of_h, block.w_in)
        return None, None, None, of_x, *of_weights, *of_readout


def _rates(pairs: _Pairs, changes: Any, blocks: list[_Block], values: list[_Values]) -> tuple[list[_Rates], Tensor]:
    """Return the rates of each interaction, and that of the last one's output."""
    dx = torch.zeros_like(values[0].x)
    rates = []
    for block, value in zip(blocks, values, strict=True):
        dh = dx @ block.w_in.T
        dy = torch.zeros_like(dh)
        convolve_rates(*pairs.arguments(block.table, changes), _flat(value.h), _flat(dh), _flat(dy))
        db = dy @ block.w1.T
        rates.append(_Rates(dx, dh, dy, db, value.act.slope * db))
        dx = torch.addmm(dx, rates[-1].act, block.w2.T)
    return rates, dx


def _arranged(weights: tuple[Tensor, ...]) -> tuple[list[_Block], _Readout]:
    size, own = len(_Block._fields), len(weights) - len(_Readout._fields)
    return [_Block(*weights[k : k + size]) for k in range(0, own, size)], _Readout(*weights[own:])


def _curve(x: Tensor, activation: str) -> _Curve:
    sigmoid = torch.sigmoid(x)
    bell = sigmoid * (1.0 - sigmoid)
    if activation == "ssp":
        return _Curve(-F.logsigmoid(-x) - math.log(2.0), sigmoid, bell)
    value = x * sigmoid
    return _Curve(value, torch.addcmul(sigmoid, x, bell), bell * (2.0 + x - 2.0 * value))


def _flat(tensor: Tensor) -> Any:
    return tensor.detach().contiguous().view(-1).numpy()
