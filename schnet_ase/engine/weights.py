"""Lay out the weights of networks for the kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from schnet_ase.engine.layout import Shape, Weights
from schnet_ase.engine.simd import VECTOR_BYTES
from schnet_ase.engine.tables import TOLERANCES, FilterTable, equal_tables
from schnet_ase.geometry.arrays import Floats
from schnet_ase.networks import SchNet
from schnet_ase.networks.schnet import Interaction
from schnet_ase.priors import zbl


def lay_out(models: Sequence[SchNet], dtype: np.dtype[Any]) -> tuple[Shape, Weights]:
    """Return sizes and weights of networks of one config; features are padded with zeros to whole vectors."""
    config = models[0].config
    lanes = VECTOR_BYTES // dtype.itemsize
    tables = equal_tables(models, TOLERANCES[dtype.name])
    step = 4 * lanes  # outputs of a dense layer that are computed together
    F, H = (-(-n // step) * step for n in (config.n_features, config.readout_features))
    shape = Shape(
        len(models),
        config.n_interactions,
        F,
        H,
        config.max_z,
        tables[0].coefficients.shape[1],
        silu=config.activation == "silu",
        readout_silu=(config.readout_activation or config.activation) == "silu",
    )
    members = [_lay_out_one(model, table, F, H, lanes) for model, table in zip(models, tables, strict=True)]
    flat = _Member(
        *(np.concatenate([np.ravel(a) for a in arrays]).astype(dtype) for arrays in zip(*members, strict=True))
    )
    cutoff = config.pair_cutoff
    repelled = config.max_z if config.prior == "zbl" else 0
    return shape, Weights(
        embedding=flat.embedding,
        embedding_in=flat.embedding_in,
        table=flat.table,
        dense=flat.dense,
        bias=flat.bias,
        readout=flat.readout,
        readout_transposed=flat.readout_transposed,
        readout_bias=flat.readout_bias,
        output=flat.output,
        output_bias=np.array([array_of(model.readout2.bias)[0] for model in models]),
        zeros=np.zeros(max(F, H), dtype),
        scale=np.array([float(model.scale) for model in models]),
        reference=np.stack([array_of(model.reference) for model in models]),
        width=tables[0].width,
        cutoff=math.inf if cutoff is None else cutoff,
        reach=zbl.reaches(repelled),
        screening=zbl.screenings(repelled),
    )


class _Member(NamedTuple):
    """The parts of `Weights` in the kernel's dtype, for one member or for all."""

    embedding: NDArray[Any]
    embedding_in: NDArray[Any]
    table: NDArray[Any]
    dense: NDArray[Any]
    bias: NDArray[Any]
    readout: NDArray[Any]
    readout_transposed: NDArray[Any]
    readout_bias: NDArray[Any]
    output: NDArray[Any]


def _lay_out_one(model: SchNet, table: FilterTable, F: int, H: int, lanes: int) -> _Member:
    embedding = array_of(model.embedding.weight)
    blocks = [cast("Interaction", block) for block in model.interactions]
    first = blocks[0].dense_in
    L, rows = table.coefficients.shape[:2]
    coefficients = _fill(table.coefficients, 3, F).reshape(L, rows, 6, F // lanes, lanes).transpose(0, 3, 1, 2, 4)
    layers = [layer for block in blocks for layer in (block.dense_in, block.dense1, block.dense2)]
    weights = [_fill(_fill(array_of(layer.weight), 0, F), 1, F) for layer in layers[1:]]  # the first is in embedding_in
    dense = [_by_columns(w.T, lanes) for w in weights] + [_by_columns(w, lanes) for w in reversed(weights)]
    bias = [_fill(_bias(layer), 0, F) for layer in layers]
    readout = _fill(_fill(array_of(model.readout1.weight), 0, H), 1, F)
    return _Member(
        embedding=_fill(embedding, 1, F),
        embedding_in=_fill(np.matmul(embedding, array_of(first.weight).T) + _bias(first), 1, F),
        table=coefficients,
        dense=np.stack(dense),
        bias=np.stack(bias),
        readout=_by_columns(readout.T, lanes),
        readout_transposed=_by_columns(readout, lanes),
        readout_bias=_fill(array_of(model.readout1.bias), 0, H),
        output=_fill(array_of(model.readout2.weight)[0], 0, H),
    )


def _by_columns(matrix: Floats, lanes: int) -> Floats:
    """Rearrange (inputs, outputs) as (outputs / 4 lanes, inputs, 4 lanes)."""
    return matrix.reshape(len(matrix), -1, 4 * lanes).swapaxes(0, 1)


def _fill(array: Floats, axis: int, size: int) -> Floats:
    """Pad with zeros along `axis` up to `size`."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, size - array.shape[axis])
    return np.pad(array, widths)


def _bias(layer: nn.Linear) -> Floats:
    return np.zeros(layer.out_features) if layer.bias is None else array_of(layer.bias)


def array_of(tensor: Tensor) -> Floats:
    """The numbers of a tensor in float64."""
    array: Floats = tensor.detach().cpu().double().numpy()
    return array
