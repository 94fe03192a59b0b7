"""Frames as batches of graphs with their labels; each neighbour list is made once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from ase.stress import voigt_6_to_full_3x3_stress
from torch import Tensor

from schnet_ase.data import Frame, StoredFrames
from schnet_ase.data.lazy import Lazy, joined
from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.graph import Graph, Pairs, batch_graphs, build_graph, make_graph, pair_vectors


class Batch(NamedTuple):
    """B labelled systems with N atoms in total. A label that a frame lacks is NaN, so that all batches have the same
    fields."""

    graph: Graph
    n_atoms: Tensor
    """(B,) float64."""
    energy: Tensor
    """(B,) float64 eV."""
    forces: Tensor
    """(N, 3) float64 eV/Å."""
    virial: Tensor
    """(B, 3, 3) float64 eV, the stress times the volume: the derivative of the energy with respect to a strain."""
    weight: Tensor
    """(B,) float64 weight of each system in the loss."""


def own_weight(frame: Frame) -> float:
    """Return the weight of a frame that its file states."""
    return frame.weight


def make_example(frame: Frame, cutoff: float | None, weigh: Callable[[Frame], float] = own_weight) -> Batch:
    """Make a batch of one frame."""
    return _labelled(build_graph(frame.geometry, cutoff), frame, weigh(frame))


def make_examples(
    frames: Sequence[Frame],
    indices: Sequence[int],
    cutoff: float | None,
    weigh: Callable[[Frame], float] = own_weight,
) -> Sequence[Batch]:
    """Make a batch of one from each of some frames: a list, or for frames of a store one at a time on request.

    Parameters
    ----------
    frames, indices
        All frames, and the indices of those to use.
    cutoff
        Cutoff of the pairs, Å; None: every pair.
    weigh
        Function from a frame to its weight in the loss.
    """
    if not isinstance(frames, StoredFrames) or frames.cutoff != cutoff:
        return [make_example(frames[i], cutoff, weigh) for i in indices]

    def make(k: int) -> Batch:
        frame = frames[indices[k]]
        return _labelled(make_graph(frame.geometry, frames.neighbors(indices[k])), frame, weigh(frame))

    return Lazy(make, len(indices))


def make_training_examples(
    frames: Sequence[Frame],
    indices: Sequence[int],
    cutoff: float | None,
    more: Sequence[Frame] = (),
    weigh: Callable[[Frame], float] = own_weight,
) -> Sequence[Batch]:
    """Make examples as `make_examples` does, also of all of `more`, without the pairs beyond the cutoff.

    The envelope of those pairs is zero.

    If all frames are in memory and have the same number of atoms, they also get the same number of pairs, for
    `same_shape`: each frame keeps its nearest pairs, as many as the frame with the most pairs has within the cutoff.
    """
    if more and (isinstance(frames, StoredFrames) or isinstance(more, StoredFrames)):
        others = make_training_examples(more, range(len(more)), cutoff, weigh=weigh)
        return joined(make_training_examples(frames, indices, cutoff, weigh=weigh), others)
    if more:
        frames, indices = [*(frames[i] for i in indices), *more], range(len(indices) + len(more))
    examples = make_examples(frames, indices, cutoff, weigh)
    if cutoff is None:
        return examples
    if isinstance(examples, Lazy):
        return Lazy(lambda k: _near(examples[k], cutoff), len(examples))
    if len({len(e.graph.numbers) for e in examples}) > 1:
        return [_near(e, cutoff) for e in examples]
    most = max(_n_near(e, cutoff) for e in examples)
    if any(len(e.graph.pairs.first) < most for e in examples):
        # A liquid's lists end at the cutoff; a tenth more of it is a third more of pairs.
        farther = [make_example(frames[i], 1.1 * cutoff, weigh) for i in indices]
        if any(len(e.graph.pairs.first) < most for e in farther):
            return examples
        examples = farther
    return [e._replace(graph=_nearest(e.graph, most)) for e in examples]


def _n_near(example: Batch, cutoff: float) -> int:
    """Return the number of pairs within the cutoff."""
    return int((_distances(example.graph) < cutoff).sum())


def _near(example: Batch, cutoff: float) -> Batch:
    """Return the example with only the pairs within the cutoff."""
    return example._replace(graph=_nearest(example.graph, _n_near(example, cutoff)))


def _nearest(graph: Graph, n_pairs: int) -> Graph:
    """Return the graph with its `n_pairs` nearest pairs."""
    keep = torch.argsort(_distances(graph), stable=True)[:n_pairs].sort().values
    return graph._replace(
        pairs=Pairs(graph.pairs.first[keep], graph.pairs.second[keep]),
        shifts=None if graph.shifts is None else graph.shifts[keep],
    )


def _distances(graph: Graph) -> Tensor:
    distances: Tensor = torch.linalg.vector_norm(pair_vectors(graph), dim=-1)
    return distances


def _labelled(graph: Graph, frame: Frame, weight: float) -> Batch:
    n_atoms = len(frame.geometry.numbers)
    return Batch(
        graph,
        torch.tensor([float(n_atoms)], dtype=torch.float64),
        torch.tensor([np.nan if frame.energy is None else frame.energy], dtype=torch.float64),
        torch.as_tensor(np.full((n_atoms, 3), np.nan) if frame.forces is None else frame.forces, dtype=torch.float64),
        torch.as_tensor(_virial(frame), dtype=torch.float64)[None],
        torch.tensor([weight], dtype=torch.float64),
    )


def _virial(frame: Frame) -> Floats:
    """Return the (3, 3) virial, eV; NaN without a stress."""
    if frame.stress is None:
        return np.full((3, 3), np.nan)
    stress: Floats = voigt_6_to_full_3x3_stress(frame.stress)
    virial: Floats = stress * abs(np.linalg.det(frame.geometry.cell))
    return virial


def collate(examples: Sequence[Batch]) -> Batch:
    """Join several batches into one."""
    return Batch(
        batch_graphs([e.graph for e in examples]),
        torch.cat([e.n_atoms for e in examples]),
        torch.cat([e.energy for e in examples]),
        torch.cat([e.forces for e in examples]),
        torch.cat([e.virial for e in examples]),
        torch.cat([e.weight for e in examples]),
    )


def batch_to(batch: Batch, device: torch.device) -> Batch:
    """Return the batch on `device`."""
    return Batch(
        batch.graph.to(device),
        batch.n_atoms.to(device),
        batch.energy.to(device),
        batch.forces.to(device),
        batch.virial.to(device),
        batch.weight.to(device),
    )


def same_shape(examples: Sequence[Batch]) -> bool:
    """Whether all frames have as many atoms and pairs as the first, so that one compiled function serves them all."""

    def shape(e: Batch) -> tuple[int, int, bool]:
        return len(e.graph.numbers), len(e.graph.pairs.first), e.graph.shifts is None

    first = shape(examples[0])
    return all(shape(e) == first for e in examples)
