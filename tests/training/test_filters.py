"""Filters interpolated in training are the network's own to rounding error, and so are loss and gradient."""

import copy
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
from schnet_ase.training.step.filters import TOLERANCE, InterpolatedSchNet, interpolation_error, steps_for
from schnet_ase.training.step.interpolation import POINTS, interpolate, project, spread
from schnet_ase.training.step.loss import LossTerms, eager_step
from schnet_ase.training.step.steps import Steps

EXPONENTIAL = replace(SchNetConfig.md(), radial="exponential", n_rbf=16, cutoff=5.0, activation="ssp")
GAUSSIAN = SchNetConfig(n_features=96, n_rbf=16, cutoff=5.0, gamma=None, envelope="cosine")
CONFIGS = [EXPONENTIAL, GAUSSIAN, replace(EXPONENTIAL, activation="silu", filter_activation_last=True)]


def make(config: SchNetConfig, dtype: torch.dtype = torch.float64) -> SchNet:
    torch.manual_seed(0)
    return SchNet(config).to(dtype)


def interpolated(model: SchNet) -> InterpolatedSchNet:
    steps = steps_for(model)
    assert steps is not None
    return InterpolatedSchNet(model, steps)


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
    r = torch.linspace(0.0, 5.5, 1101, dtype=torch.float64, requires_grad=True)
    for ours, exact in zip(interpolated(model).filters(r), model.filters(r), strict=True):
        assert (ours - exact).abs().max() <= 1e-6 * exact.abs().max()
        slope, expected = (torch.autograd.grad(f[:, 3].sum(), r, retain_graph=True)[0] for f in (ours, exact))
        assert torch.isfinite(slope).all()
        # From 0.3 Å on, nearer than which no two nuclei come.
        assert (slope - expected)[60:].abs().max() <= 1e-6 * expected.abs().max()
        assert ours[r >= 5.0].abs().max() == 0.0


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("make_atoms", [chain, liquid, lambda: molecule("CH3CH2OH")])
def test_loss_and_gradient(config: SchNetConfig, make_atoms) -> None:
    model = make(config)
    batch = batch_of(make_atoms())
    exact = eager_step(model, LossTerms(0.01, 1.0))(batch)
    expected = [p.grad.clone() for p in model.parameters()]
    loss = eager_step(interpolated(model), LossTerms(0.01, 1.0))(batch)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert (parameter.grad - gradient).abs().max() <= 1e-5 * gradient.abs().max() + 1e-12


@pytest.mark.parametrize("config", CONFIGS)
def test_single_precision(config: SchNetConfig) -> None:
    """A slope is a difference of filters at neighbouring points, whose rounding errors it has, over a step."""
    batch = batch_of(molecule("CH3CH2OH"))
    model = make(config, torch.float32)
    truth = predict(copy.deepcopy(model).double(), batch.graph).forces
    assert truth is not None
    forces = predict(interpolated(model), batch.graph).forces
    # Between the middle two of eight points, the absolute slopes of Lagrange's polynomials add up to 2.7 per step.
    bound = 2.7 * steps_for(model) * torch.finfo(torch.float32).eps
    assert (forces - truth).abs().max() <= bound * truth.abs().max()


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


def test_operators_have_the_derivatives_of_the_sum_that_they_stand_for() -> None:
    rng = torch.Generator().manual_seed(0)
    table, weights, values = (
        torch.rand(shape, generator=rng, dtype=torch.float64, requires_grad=True)
        for shape in ((12, 3), (4, POINTS), (4, 3))
    )
    start = torch.tensor([0, 4, 4, 2])
    rows = start[:, None] + torch.arange(POINTS)
    torch.testing.assert_close(interpolate(table, weights, start), torch.einsum("pj,pjf->pf", weights, table[rows]))
    operators = [
        lambda c, w, g: interpolate(c, w, start),
        lambda c, w, g: spread(w, start, g, 12),
        lambda c, w, g: project(c, start, g),
    ]
    for operator in operators:
        assert torch.autograd.gradcheck(operator, (table, weights, values))
        assert torch.autograd.gradgradcheck(operator, (table, weights, values))
    torch.library.opcheck(interpolate, (table, weights, start))
    torch.library.opcheck(spread, (weights, start, values, 12))
    torch.library.opcheck(project, (table, start, values))
