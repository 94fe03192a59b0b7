"""The loss is the paper's, and its gradient reaches the weights through the forces."""

import numpy as np
import pytest
import torch
from ase.build import molecule

from schnet_ase import SchNet, SchNetConfig
from schnet_ase.data import Frame
from schnet_ase.data.batches import collate, make_example, make_examples
from schnet_ase.evaluation.evaluate import evaluate
from schnet_ase.geometry.system import geometry
from schnet_ase.inference.forces import predict
from schnet_ase.training.config import TrainingConfig
from schnet_ase.training.step.compiled import can_compile, compiled_step
from schnet_ase.training.step.loss import ROUNDED, LossTerms, eager_step, evaluation_loss, frame_losses
from schnet_ase.training.step.weights import frame_weight

CONFIG = SchNetConfig(n_features=8, n_interactions=1, n_rbf=8, cutoff=4.0, gamma=None, envelope="polynomial")


def random_frame(name, rng):
    atoms = molecule(name)
    atoms.rattle(0.05, rng=rng)
    return Frame(geometry(atoms), float(rng.normal()), rng.normal(size=(len(atoms), 3)))


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    return [random_frame(name, rng) for name in ("H2O", "CH3CH2OH", "CH4")]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SchNet(CONFIG).double()


def loss_by_hand(model, frames, rho, weight, unit=1.0, power=2, frame_weights=(1.0, 1.0, 1.0)):
    terms = []
    for frame, own_weight in zip(frames, frame_weights, strict=True):
        prediction = predict(model, make_example(frame, 4.0).graph)
        de = abs(prediction.energy.item() - frame.energy) * unit
        df = np.linalg.norm(prediction.forces.numpy() - frame.forces, axis=1) * unit
        terms.append(own_weight * (rho * de**power + weight / len(df) * sum(df**power)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize(("rho", "weight"), [(0.01, 1.0), (1.0, 0.0), (0.0, 1.0), (0.3, 0.7)])
@pytest.mark.parametrize(("kind", "power"), [("squared", 2), ("absolute", 1)])
def test_loss_is_the_formula(model, frames, rho, weight, kind, power):
    batch = collate([make_example(f, 4.0) for f in frames])
    loss = frame_losses(predict(model, batch.graph), batch, LossTerms(rho, weight, kind)).mean()
    # What is rounded off at zero is at most that much of every error.
    rounded = 0.0 if kind == "squared" else (rho + weight) * ROUNDED
    by_hand = loss_by_hand(model, frames, rho, weight, power=power)
    assert loss.item() == pytest.approx(by_hand, rel=1e-12, abs=rounded)
    assert evaluation_loss(evaluate(model, [batch]), LossTerms(rho, weight, kind)) == pytest.approx(
        loss.item(), rel=1e-12
    )


@pytest.mark.parametrize("kind", ["squared", "absolute"])
def test_frames_count_by_their_formulas(model, frames, kind):
    training = TrainingConfig(frame_weights={"H2O": 3.0, "C2H6O": 0.5})
    examples = make_examples(frames, range(3), 4.0, lambda frame: frame_weight(frame, training))
    batch = collate(examples)
    loss = frame_losses(predict(model, batch.graph), batch, LossTerms(0.3, 0.7, kind)).mean()
    power = 2 if kind == "squared" else 1
    by_hand = loss_by_hand(model, frames, 0.3, 0.7, power=power, frame_weights=(3.0, 0.5, 1.0))
    assert loss.item() == pytest.approx(by_hand, rel=1e-12, abs=0.0 if power == 2 else 3.0 * ROUNDED)
    assert evaluation_loss(evaluate(model, examples), LossTerms(0.3, 0.7, kind)) == pytest.approx(
        loss.item(), rel=1e-12
    )


def test_an_absolute_error_of_zero_has_a_slope_of_zero(model, frames):
    """The square root has none of its own there."""
    predictions = [predict(model, make_example(f, 4.0).graph) for f in frames]
    exact = [
        Frame(f.geometry, p.energy.item(), p.forces.detach().numpy()) for f, p in zip(frames, predictions, strict=True)
    ]
    loss = eager_step(model, LossTerms(0.3, 0.7, "absolute"))(collate([make_example(f, 4.0) for f in exact]))
    assert loss.item() < 1e-9
    for parameter in model.parameters():
        assert parameter.grad is None or parameter.grad.abs().max().item() < 1e-6


def test_rho_does_not_depend_on_the_unit_of_energy(model, frames):
    """The report's 0.01 is for kcal/mol; both terms scale with the square of the unit."""
    kcal = 23.060548
    ratio = loss_by_hand(model, frames, 0.01, 1.0, kcal) / loss_by_hand(model, frames, 0.01, 1.0)
    assert ratio == pytest.approx(kcal**2, rel=1e-12)


def test_gradient_of_a_force_loss_by_finite_differences(model, frames):
    batch = collate([make_example(f, 4.0) for f in frames])
    eager_step(model, LossTerms(0.0, 1.0))(batch)
    weight = model.interactions[0].filter_network.dense1.weight
    expected = weight.grad[2, 3].item()
    losses = []
    for shift in (1e-5, -1e-5):
        with torch.no_grad():
            weight[2, 3] += shift
        losses.append(frame_losses(predict(model, batch.graph), batch, LossTerms(0.0, 1.0)).mean().item())
        with torch.no_grad():
            weight[2, 3] -= shift
    assert abs(expected) > 1e-6
    assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(expected, rel=1e-6)


@pytest.mark.skipif(not can_compile(), reason="no C++ compiler")
def test_compiled_and_eager_gradients_agree():
    torch.manual_seed(0)
    model = SchNet(CONFIG)
    rng = np.random.default_rng(1)
    for seed in range(2):  # the second batch runs what was compiled for the first
        rng = np.random.default_rng(seed)
        batch = collate([make_example(random_frame("CH4", rng), 4.0) for _ in range(3)])
        loss = eager_step(model, LossTerms(0.01, 1.0))(batch)
        expected = [p.grad.clone() for p in model.parameters()]
        if seed == 0:
            step = compiled_step(model, LossTerms(0.01, 1.0))
        assert step(batch).item() == pytest.approx(loss.item(), rel=1e-5)
        for parameter, gradient in zip(model.parameters(), expected, strict=True):
            scale = gradient.abs().max().item()
            assert (parameter.grad - gradient).abs().max().item() <= 1e-4 * scale + 1e-7
