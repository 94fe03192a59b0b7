"""The step whose derivatives are written out has the predictions, the loss and the gradient of automatic
differentiation."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from schnet_ase import SchNet, SchNetConfig
from schnet_ase.data import Frame
from schnet_ase.data.batches import Batch, collate, make_example
from schnet_ase.geometry.system import geometry
from schnet_ase.inference.forces import predict
from schnet_ase.training.config import TrainingConfig
from schnet_ase.training.step.filters import TabulatedFilters, steps_for
from schnet_ase.training.step.loss import LossTerms, eager_step
from schnet_ase.training.step.steps import Steps
from schnet_ase.training.step.written_out import can_write_out, predict_written_out

EXPONENTIAL = replace(SchNetConfig.md(), n_interactions=3, radial="exponential", n_rbf=16, cutoff=5.0, activation="ssp")
CONFIGS = [
    EXPONENTIAL,
    SchNetConfig(n_features=96, n_rbf=16, cutoff=5.0, gamma=None, envelope="cosine", interaction_bias=False),
    replace(EXPONENTIAL, activation="silu", filter_activation_last=True),
    replace(EXPONENTIAL, n_interactions=1, n_features=8, readout_activation="silu"),
]
TERMS = [LossTerms(0.01, 1.0), LossTerms(0.3, 1.0, "absolute", 0.2), LossTerms(1.0, 0.0), LossTerms(0.0, 1.0)]


def make(config: SchNetConfig, dtype: torch.dtype = torch.float64) -> SchNet:
    torch.manual_seed(0)
    model = SchNet(config).to(dtype)
    model.scale.fill_(1.7)
    model.reference.normal_()
    return model


def predicted(model: SchNet, batch: Batch):
    steps = steps_for(model)
    assert steps is not None
    return predict_written_out(model, TabulatedFilters(model, steps), batch.graph)


def liquid() -> Atoms:
    """A periodic, triclinic box that is narrower than twice the cutoff."""
    rng = np.random.default_rng(0)
    cell = np.array([[7.0, 0.0, 0.0], [1.0, 6.5, 0.0], [-0.5, 0.7, 7.2]])
    return Atoms("OHH" * 8, rng.random((24, 3)) @ cell, cell=cell, pbc=True)


def molecules() -> list[Atoms]:
    """Molecules of several sizes, one of them with a pair beyond the cutoff, and an atom alone."""
    far = molecule("H2O")
    far.positions[2] += (3.0, 4.0, 0.0)
    return [molecule("CH3CH2OH"), far, molecule("NH3"), Atoms("C")]


def batch_of(structures: list[Atoms], *, lacking: bool = False) -> Batch:
    rng = np.random.default_rng(0)
    frames = []
    for atoms in structures:
        moved = atoms.copy()
        moved.rattle(0.1, rng=rng)
        stress = rng.normal(size=6) * 1e-3 if moved.pbc.all() else None
        frames.append(Frame(geometry(moved), float(rng.normal()), rng.normal(size=(len(atoms), 3)), stress))
    if lacking:
        frames[0] = frames[0]._replace(energy=None)
        frames[-1] = frames[-1]._replace(forces=None)
    return collate([make_example(frame, 5.0) for frame in frames])


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("structures", [molecules(), [liquid(), liquid()]])
def test_predictions(config: SchNetConfig, structures: list[Atoms]) -> None:
    model = make(config)
    batch = batch_of(structures)
    for ours, exact in zip(predicted(model, batch), predict(model, batch.graph), strict=True):
        torch.testing.assert_close(ours.detach(), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("structures", [molecules(), [liquid(), liquid()]])
def test_loss_and_gradient(config: SchNetConfig, structures: list[Atoms], terms: LossTerms) -> None:
    model = make(config)
    batch = batch_of(structures, lacking=True)
    exact = eager_step(model, terms)(batch)
    expected = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    loss = eager_step(model, terms, lambda _: predicted(model, batch))(batch)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        if gradient is None:  # such as the last bias without an energy term
            assert parameter.grad is None or not parameter.grad.any()
        else:
            assert (parameter.grad - gradient).abs().max() <= 1e-5 * gradient.abs().max() + 1e-10


def test_gradient_is_the_slope_of_the_loss() -> None:
    """Along a random direction of all weights, by central differences."""
    model, terms = make(EXPONENTIAL), LossTerms(0.01, 1.0)
    batch = batch_of(molecules())
    step = eager_step(model, terms, lambda _: predicted(model, batch))
    step(batch)
    directions = [torch.randn_like(p) for p in model.parameters()]
    slope = sum(float((p.grad * d).sum()) for p, d in zip(model.parameters(), directions, strict=True))

    def moved(by: float) -> float:
        with torch.no_grad():
            for parameter, direction in zip(model.parameters(), directions, strict=True):
                parameter += by * direction
        return step(batch).item()

    h = 1e-5
    assert (moved(h) - moved(-2.0 * h)) / (2.0 * h) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("config", CONFIGS)
def test_single_precision(config: SchNetConfig) -> None:
    """A slope is a difference of filters at neighbouring points, whose rounding errors it has, over a step."""
    batch = batch_of([molecule("CH3CH2OH")])
    model = make(config, torch.float32)
    truth = predict(copy.deepcopy(model).double(), batch.graph).forces
    forces = predicted(model, batch).forces
    assert truth is not None
    assert forces is not None
    # Between the middle two of eight points, the absolute slopes of Lagrange's polynomials add up to 2.7 per step.
    bound = 2.7 * steps_for(model) * torch.finfo(torch.float32).eps
    assert (forces - truth).abs().max() <= bound * truth.abs().max()


@pytest.mark.parametrize(
    "config",
    [
        replace(EXPONENTIAL, norm="rms"),
        replace(EXPONENTIAL, dropout=0.1),
        replace(EXPONENTIAL, activation="tanh"),
        replace(EXPONENTIAL, readout_activation="gelu"),
        replace(EXPONENTIAL, n_features=12),
    ],
)
def test_networks_with_other_parts_are_left_to_automatic_differentiation(config: SchNetConfig) -> None:
    model = make(config)
    assert not can_write_out(model)
    batch = batch_of(molecules())
    steps = Steps(model, TrainingConfig(steps=10, batch_size=3), same_shape=False)
    torch.manual_seed(1)
    loss = steps.current()(batch)
    torch.manual_seed(1)
    assert loss.item() == eager_step(model, LossTerms(0.01, 1.0))(batch).item()
