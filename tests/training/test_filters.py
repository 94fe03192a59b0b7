"""Filters from tables in training are the network's own to rounding error, and a table is used only where they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from schnet_ase import SchNet, SchNetConfig
from schnet_ase.data import Frame
from schnet_ase.data.batches import Batch, collate, make_example, make_training_examples, same_shape
from schnet_ase.geometry.graph import pair_vectors
from schnet_ase.geometry.system import geometry
from schnet_ase.inference.forces import predict
from schnet_ase.training.config import TrainingConfig
from schnet_ase.training.step.convolutions import POINTS
from schnet_ase.training.step.filters import TOLERANCE, TabulatedFilters, interpolation_error, steps_for
from schnet_ase.training.step.loss import LossTerms, eager_step
from schnet_ase.training.step.steps import Steps

EXPONENTIAL = replace(SchNetConfig.md(), radial="exponential", n_rbf=16, cutoff=5.0, activation="ssp")
GAUSSIAN = SchNetConfig(n_features=96, n_rbf=16, cutoff=5.0, gamma=None, envelope="cosine")
CONFIGS = [EXPONENTIAL, GAUSSIAN, replace(EXPONENTIAL, activation="silu", filter_activation_last=True)]


def make(config: SchNetConfig, dtype: torch.dtype = torch.float64) -> SchNet:
    torch.manual_seed(0)
    return SchNet(config).to(dtype)


def tabulated(model: SchNet) -> TabulatedFilters:
    steps = steps_for(model)
    assert steps is not None
    return TabulatedFilters(model, steps)


def labelled(atoms: Atoms, seed: int, amplitude: float = 0.1) -> Frame:
    rng = np.random.default_rng(seed)
    atoms = atoms.copy()
    atoms.rattle(amplitude, rng=rng)
    return Frame(geometry(atoms), float(rng.normal()), rng.normal(size=(len(atoms), 3)))


def chain() -> Atoms:
    """Longer than the cutoff, so that some pairs are beyond it."""
    return Atoms("C6", [[1.4 * i, 0.3 * (i % 2), 0.0] for i in range(6)])


def liquid() -> Atoms:
    """A periodic, triclinic box in which the frames differ in how many pairs are within the cutoff."""
    rng = np.random.default_rng(0)
    cell = np.array([[7.0, 0.0, 0.0], [1.0, 6.5, 0.0], [-0.5, 0.7, 7.2]])
    return Atoms("OHH" * 8, rng.random((24, 3)) @ cell, cell=cell, pbc=True)


def batch_of(atoms: Atoms) -> Batch:
    return collate([make_example(labelled(atoms, seed), 5.0) for seed in range(3)])


@pytest.mark.parametrize("config", CONFIGS)
def test_filters_and_slopes(config: SchNetConfig) -> None:
    model = make(config)
    filters = tabulated(model)
    r = torch.linspace(0.0, 5.5, 1101, dtype=torch.float64, requires_grad=True)
    places = filters.places(r)
    rows = torch.from_numpy(places.start)[:, None] + torch.arange(POINTS)
    slopes = torch.from_numpy(places.slopes).view(-1, POINTS)
    for table, ours, exact in zip(filters.tables(), filters.filters(r), model.filters(r), strict=True):
        assert (ours - exact).abs().max() <= 1e-6 * exact.abs().max()
        assert ours[r >= 5.0].abs().max() == 0.0
        slope = torch.einsum("pj,pj->p", slopes, table[rows][:, :, 3])
        (expected,) = torch.autograd.grad(exact[:, 3].sum(), r, retain_graph=True)
        assert torch.isfinite(slope).all()
        # From 0.3 Å on, nearer than which no two nuclei come.
        assert (slope - expected)[60:].abs().max() <= 1e-6 * expected.abs().max()


def test_filters_that_training_has_sharpened_are_computed_exactly() -> None:
    model = make(EXPONENTIAL, torch.float32)
    steps = Steps(model, TrainingConfig(steps=10, batch_size=3), same_shape=False)
    smooth = steps.current()
    with torch.no_grad():
        for block in model.interactions:
            block.filter_network.dense1.weight *= 100.0
    assert interpolation_error(model, steps_for(model)) > 100 * TOLERANCE
    assert steps.current() is not smooth
    batch = batch_of(chain())
    assert steps.current()(batch).item() == eager_step(model, LossTerms(0.01, 1.0))(batch).item()


@pytest.mark.parametrize(
    "config", [SchNetConfig(), replace(EXPONENTIAL, envelope="none", radial="gaussian"), replace(GAUSSIAN, n_rbf=100)]
)
def test_where_it_saves_nothing_or_has_no_end(config: SchNetConfig) -> None:
    assert steps_for(make(config)) is None


@pytest.mark.parametrize("make_atoms", [chain, liquid])
def test_training_examples_are_of_one_shape_and_lose_nothing(make_atoms) -> None:
    model = make(EXPONENTIAL)
    frames = [labelled(make_atoms(), seed, 0.3) for seed in range(6)]
    within = [make_example(f, 5.0) for f in frames]
    examples = make_training_examples(frames, range(6), 5.0)
    assert same_shape(examples)
    pairs = [int((distances(e) < 5.0).sum()) for e in within]
    assert len(set(pairs)) > 1, "the frames differ, so that some had to be filled up"
    assert len(examples[0].graph.pairs.first) == max(pairs)
    for ours, exact in zip(examples, within, strict=True):
        for a, b in zip(predict(model, ours.graph)[:3], predict(model, exact.graph)[:3], strict=True):
            assert torch.allclose(a, b, rtol=1e-10, atol=1e-10)


def distances(example: Batch) -> torch.Tensor:
    return torch.linalg.vector_norm(pair_vectors(example.graph), dim=-1)


def test_training_examples_of_several_kinds_have_the_pairs_within_the_cutoff() -> None:
    frames = [labelled(atoms, 0) for atoms in (molecule("H2O"), molecule("CH4"), chain())]
    examples = make_training_examples(frames, range(3), 5.0)
    within = int((distances(make_example(frames[2], 5.0)) < 5.0).sum())
    assert within < len(make_example(frames[2], 5.0).graph.pairs.first)
    assert [len(e.graph.pairs.first) for e in examples] == [3, 10, within]
    assert all((distances(e) < 5.0).all() for e in examples)
