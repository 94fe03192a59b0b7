"""The file that pair style ``schnet`` reads: networks as filter tables and matrices, after a header of plain text.

The header has a line a key, and ends with an empty one; the numbers follow in little-endian order, of each group of
networks with one shape, and of each network in it, in the order of `_numbers`. ``source/schnet_model.cpp`` reads it.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from ase.data import chemical_symbols

from schnet_ase.engine.tables import TOLERANCES, FilterTable, equal_tables
from schnet_ase.engine.weights import array_of
from schnet_ase.errors import ExportError
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.inference.compiled import why_not_compiled
from schnet_ase.networks import SchNet
from schnet_ase.networks.schnet import Interaction
from schnet_ase.output.files import atomic_write
from schnet_ase.priors import repulsion, zbl
from schnet_ase.uncertainty.calibration import Calibration

FORMAT = 1
NAMES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float64": np.dtype("<f8")}


class Group(NamedTuple):
    """Networks of one shape, with filter tables of one size."""

    models: Sequence[SchNet]
    tables: Sequence[FilterTable]


def write_model_file(
    path: str | os.PathLike[str],
    members: Sequence[SchNet],
    *,
    name: str,
    dtype: str = "float32",
    student: SchNet | None = None,
    calibration: Calibration | None = None,
) -> None:
    """Write networks to one file for LAMMPS.

    Parameters
    ----------
    path
        The file; written whole or not at all.
    members
        One network, or the members of an ensemble, of one config.
    name
        What the file calls them, without spaces; LAMMPS prints it.
    dtype
        ``"float32"`` or ``"float64"``, in which LAMMPS computes.
    student
        A network that drives the run while the members only watch it; None: their mean drives.
    calibration
        Of the members, for half-widths and the threshold of flags.

    Raises
    ------
    ExportError
        The networks were made in memory and know no elements, know different ones, have no cutoff, or have a config
        that the tables or the pair style do not cover.
    TableError
        The filters cannot be tabulated.
    """
    groups = [_group(models, dtype) for models in ([student] if student else [], members) if models]
    elements = _elements([model for group in groups for model in group.models])
    body = b"".join(_body(group, elements, NAMES[dtype]) for group in groups)
    header = "\n".join(_header(groups, elements, name, dtype, calibration, body))
    atomic_write(path, f"{header}\n\n".encode() + body)


def _group(models: Sequence[SchNet], dtype: str) -> Group:
    config = models[0].config
    if any(model.config != config for model in models):
        raise ExportError("the members have different configs; expected an ensemble of one")
    if config.pair_cutoff is None:
        raise ExportError(
            "the model has no envelope, so that every pair of a molecule counts; LAMMPS needs a cutoff: train with "
            'envelope = "cosine" or "polynomial"'
        )
    if config.dispersion is not None:
        raise ExportError(
            f"pair style schnet has no dispersion, and the model includes D3(BJ) of {config.dispersion}; give a model "
            "without it (to one that was trained on labels without dispersion, LAMMPS's dispersion/d3 may be added)"
        )
    if obstacle := why_not_compiled(config):
        raise ExportError(f"pair style schnet does not cover {obstacle}")
    return Group(models, equal_tables(models, TOLERANCES[dtype]))


def _elements(models: Sequence[SchNet]) -> tuple[int, ...]:
    known = {model.elements for model in models}
    if len(known) > 1:
        raise ExportError("the networks were trained on different elements; expected the same")
    elements = known.pop()
    if elements is None:
        raise ExportError("the network does not say which elements it was trained on; set model.elements")
    return elements


def _header(
    groups: Sequence[Group],
    elements: Sequence[int],
    name: str,
    dtype: str,
    calibration: Calibration | None,
    body: bytes,
) -> Iterator[str]:
    yield f"schnet_ase-lammps {FORMAT}"
    yield "# A model for LAMMPS's pair_style schnet: this text up to an empty line, then numbers."
    yield f"name {'_'.join(name.split())}"
    yield f"dtype {dtype}"
    yield f"elements {' '.join(chemical_symbols[z] for z in elements)}"
    for models, tables in groups:
        config = models[0].config
        yield (
            f"group members {len(models)} layers {config.n_interactions} features {config.n_features} "
            f"hidden {config.readout_features} rows {tables[0].coefficients.shape[1]} width {tables[0].width!r} "
            f"cutoff {config.pair_cutoff!r} activation {config.activation} "
            f"readout_activation {config.readout_activation or config.activation} prior {config.prior or 'none'}"
        )
    if any(models[0].config.prior == "zbl" for models, _ in groups):
        yield from _repulsion(np.array(elements))
    if calibration is not None:
        yield f"threshold {calibration.threshold()!r}"
        if (forces := calibration.forces) is not None:
            yield (
                f"calibration coverage {calibration.coverage!r} prior_spread {forces.prior_spread!r} "
                f"prior_weight {forces.prior_weight!r} quantile {forces.quantile(calibration.coverage)!r}"
            )
            factors = calibration.scaled_deviation(np.ones(len(elements)), np.array(elements))
            yield f"factors {' '.join(repr(float(factor)) for factor in factors)}"
    yield f"bytes {len(body)}"
    yield f"crc32 {zlib.crc32(body):08x}"


def _repulsion(elements: Integers) -> Iterator[str]:
    last = int(elements.max()) + 1
    yield f"coulomb {repulsion.COULOMB!r}"
    for key, values in (
        ("charges", elements),
        ("reaches", zbl.reaches(last)[elements]),
        ("screenings", zbl.screenings(last)[elements]),
    ):
        yield f"{key} {' '.join(repr(float(value)) for value in values)}"


def _body(group: Group, elements: Sequence[int], dtype: np.dtype[Any]) -> bytes:
    return b"".join(
        np.ascontiguousarray(array, dtype=kind).tobytes()
        for model, table in zip(group.models, group.tables, strict=True)
        for array, kind in _numbers(model, table, list(elements), dtype)
    )


def _numbers(
    model: SchNet, table: FilterTable, elements: list[int], dtype: np.dtype[Any]
) -> Iterable[tuple[Floats, np.dtype[Any]]]:
    """The arrays of a network in the order of the file, and the dtype of each."""
    double = NAMES["float64"]
    blocks = [cast("Interaction", block) for block in model.interactions]
    layers = [layer for block in blocks for layer in (block.dense_in, block.dense1, block.dense2)]
    none = np.zeros(model.config.n_features)
    biases = [none if layer.bias is None else array_of(layer.bias) for layer in layers]
    embedding = array_of(model.embedding.weight)[elements]
    yield embedding, dtype
    yield embedding @ array_of(layers[0].weight).T + biases[0], dtype
    yield table.coefficients, dtype
    yield np.stack([array_of(layer.weight) for layer in layers]), dtype
    yield np.stack(biases), dtype
    yield array_of(model.readout1.weight), dtype
    yield array_of(model.readout1.bias), dtype
    yield array_of(model.readout2.weight), dtype
    yield array_of(model.readout2.bias), double
    yield array_of(model.scale), double
    yield array_of(model.reference)[elements], double
