"""Frames as batches of graphs with their targets: neighbour lists made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from schnet_ase.data import Frame, StoredFrames
from schnet_ase.data.frames import formula
from schnet_ase.data.lazy import Lazy, joined
from schnet_ase.graph import Graph, batch_graphs, build_graph, make_graph, pair_vectors
from schnet_ase.model import Pairs


class Batch(NamedTuple):
    """B labelled systems with N atoms in all."""

    graph: Graph
    n_atoms: Tensor
    """(B,) float64."""
    energy: Tensor | None
    """(B,) float64 eV."""
    forces: Tensor | None
    """(N, 3) float64 eV/Å."""
    weight: Tensor
    """(B,) float64; how much each counts in the loss."""


def make_example(frame: Frame, cutoff: float | None) -> Batch:
    """One frame as a batch of one."""
    return _labelled(build_graph(frame.geometry, cutoff), frame)


def make_examples(frames: Sequence[Frame], indices: Sequence[int], cutoff: float | None) -> Sequence[Batch]:
    """The frames of some indices, each as a batch of one: a list, or from a store as they are asked for."""
    if not isinstance(frames, StoredFrames) or frames.cutoff != cutoff:
        return [make_example(frames[i], cutoff) for i in indices]

    def make(k: int) -> Batch:
        frame = frames[indices[k]]
        return _labelled(make_graph(frame.geometry, frames.neighbors(indices[k])), frame)

    return Lazy(make, len(indices))


def make_training_examples(
    frames: Sequence[Frame], indices: Sequence[int], cutoff: float | None, more: Sequence[Frame] = ()
) -> Sequence[Batch]:
    """As `make_examples`, and of all of `more`, without pairs beyond the cutoff, whose envelope is zero.

    Frames with as many atoms as each other get as many pairs as well, for `same_shape`: each its nearest ones, as many
    as the frame with most has within the cutoff.
    """
    if more and (isinstance(frames, StoredFrames) or isinstance(more, StoredFrames)):
        others = make_training_examples(more, range(len(more)), cutoff)
        return joined(make_training_examples(frames, indices, cutoff), others)
    if more:
        frames, indices = [*(frames[i] for i in indices), *more], range(len(indices) + len(more))
    examples = make_examples(frames, indices, cutoff)
    if cutoff is None:
        return examples
    if isinstance(examples, Lazy):
        return Lazy(lambda k: _near(examples[k], cutoff), len(examples))
    if len({len(e.graph.numbers) for e in examples}) > 1:
        return [_near(e, cutoff) for e in examples]
    most = max(_n_near(e, cutoff) for e in examples)
    if any(len(e.graph.pairs.first) < most for e in examples):
        # A liquid's lists end at the cutoff; a tenth more of it is a third more of pairs.
        farther = [make_example(frames[i], 1.1 * cutoff) for i in indices]
        if any(len(e.graph.pairs.first) < most for e in farther):
            return examples
        examples = farther
    return [e._replace(graph=_nearest(e.graph, most)) for e in examples]


def weighted(examples: Sequence[Batch], weights: Mapping[str, float]) -> Sequence[Batch]:
    """The same, each batch of one with its weight in the loss, by its chemical formula; 1 where that has none."""

    def weigh(example: Batch) -> Batch:
        weight = weights.get(formula(example.graph.numbers), 1.0)
        return example._replace(weight=torch.full_like(example.weight, weight))

    if not weights:
        return examples
    if isinstance(examples, Lazy):
        return Lazy(lambda k: weigh(examples[k]), len(examples))
    return [weigh(e) for e in examples]


def _n_near(example: Batch, cutoff: float) -> int:
    """How many pairs are within the cutoff."""
    return int((_distances(example.graph) < cutoff).sum())


def _near(example: Batch, cutoff: float) -> Batch:
    """The same with the pairs within the cutoff."""
    return example._replace(graph=_nearest(example.graph, _n_near(example, cutoff)))


def _nearest(graph: Graph, n_pairs: int) -> Graph:
    """The same with its `n_pairs` nearest pairs."""
    keep = torch.argsort(_distances(graph), stable=True)[:n_pairs].sort().values
    return graph._replace(
        pairs=Pairs(graph.pairs.first[keep], graph.pairs.second[keep]),
        shifts=None if graph.shifts is None else graph.shifts[keep],
    )


def _distances(graph: Graph) -> Tensor:
    distances: Tensor = torch.linalg.vector_norm(pair_vectors(graph), dim=-1)
    return distances


def _labelled(graph: Graph, frame: Frame) -> Batch:
    return Batch(
        graph,
        torch.tensor([float(len(frame.geometry.numbers))], dtype=torch.float64),
        None if frame.energy is None else torch.tensor([frame.energy], dtype=torch.float64),
        None if frame.forces is None else torch.as_tensor(frame.forces, dtype=torch.float64),
        torch.ones(1, dtype=torch.float64),
    )


def collate(examples: Sequence[Batch]) -> Batch:
    """Several batches as one."""
    energies = [e.energy for e in examples if e.energy is not None]
    forces = [e.forces for e in examples if e.forces is not None]
    return Batch(
        batch_graphs([e.graph for e in examples]),
        torch.cat([e.n_atoms for e in examples]),
        torch.cat(energies) if len(energies) == len(examples) else None,
        torch.cat(forces) if len(forces) == len(examples) else None,
        torch.cat([e.weight for e in examples]),
    )


def batch_to(batch: Batch, device: torch.device) -> Batch:
    """The same batch on `device`."""
    return Batch(
        batch.graph.to(device),
        batch.n_atoms.to(device),
        None if batch.energy is None else batch.energy.to(device),
        None if batch.forces is None else batch.forces.to(device),
        batch.weight.to(device),
    )


def same_shape(examples: Sequence[Batch]) -> bool:
    """Whether all frames have as many atoms and pairs as the first, so that one compiled function serves them all."""

    def shape(e: Batch) -> tuple[int, int, bool]:
        return len(e.graph.numbers), len(e.graph.pairs.first), e.graph.shifts is None

    first = shape(examples[0])
    return all(shape(e) == first for e in examples)
