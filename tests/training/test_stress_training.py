"""Stress in the loss: the formula, its gradient, what it teaches, and its errors in tables, files and pictures."""

import csv

import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from schnet_ase import SchNetCalculator, SchNetConfig
from schnet_ase.data import Dataset, Frame, TrainingSplit
from schnet_ase.data.batches import collate, make_example, make_examples
from schnet_ase.evaluation.evaluate import evaluate
from schnet_ase.geometry.system import geometry
from schnet_ase.inference.forces import predict
from schnet_ase.registry.card import Metrics
from schnet_ase.training import TrainingConfig, train
from schnet_ase.training.config import DataConfig, RunConfig
from schnet_ase.training.history import describe
from schnet_ase.training.step.compiled import can_compile, compiled_step
from schnet_ase.training.step.loss import LossTerms, eager_step, evaluation_loss, frame_losses
from schnet_ase.training.step.padding import side_by_side
from schnet_ase.training.step.side_by_side import SideBySide
from schnet_ase.uncertainty.metrics import GPA, Errors, compute_errors

NETWORK = {"n_features": 8, "n_interactions": 1, "n_rbf": 8, "cutoff": 4.0, "gamma": None, "envelope": "polynomial"}


def copper(seed, size=(1, 1, 1)):
    """A rattled and strained cell, with the labels of EMT."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Cu", a=3.6, cubic=True) * size
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-0.03, 0.03, (3, 3))), scale_atoms=True)
    atoms.rattle(0.05, rng=rng)
    atoms.calc = EMT()
    return atoms


def labelled(atoms):
    return Frame(
        geometry(atoms), atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(include_ideal_gas=False)
    )


@pytest.fixture
def model(make_model):
    return make_model(**NETWORK).double()


def without_stress():
    atoms = molecule("H2O")
    return Frame(geometry(atoms), -1.0, np.ones((3, 3)))


@pytest.mark.parametrize(("kind", "power"), [("squared", 2), ("absolute", 1)])
def test_the_term_is_the_formula(model, kind, power):
    """Of two cells of different size and a molecule, which has no stress."""
    cells = [copper(0), copper(1, (2, 1, 1))]
    frames = [*(labelled(atoms) for atoms in cells), without_stress()]
    terms = []
    for atoms, frame in zip(cells, frames, strict=False):
        atoms.calc = SchNetCalculator(model, dtype="float64", engine="autograd")
        xx, yy, zz, yz, xz, xy = atoms.get_stress() - frame.stress
        square = xx**2 + yy**2 + zz**2 + 2 * (yz**2 + xz**2 + xy**2)
        terms.append((np.sqrt(square) * atoms.get_volume() / np.sqrt(len(atoms))) ** power)
    batch = collate([make_example(f, 4.0) for f in frames])
    loss = frame_losses(predict(model, batch.graph), batch, LossTerms(0.0, 0.0, kind, 0.7))
    by_hand = [0.7 * t for t in terms] + [0.0]
    assert loss.tolist() == pytest.approx(by_hand, rel=1e-9, abs=1e-15 if power == 2 else 1e-4)
    evaluation = evaluate(model, make_examples(frames, range(3), 4.0), batch_size=2)
    found = evaluation_loss(evaluation, LossTerms(0.0, 0.0, kind, 0.7))
    assert found == pytest.approx(loss.mean().item(), rel=1e-9)


def test_labels_that_are_the_change_of_energy_with_strain_have_no_error(model):
    """Central differences of the energy of strained cells, by hand: sign, order and volume of the stress."""
    atoms = copper(2)
    cell, scaled, volume, h = atoms.cell.array, atoms.get_scaled_positions(), atoms.get_volume(), 1e-5

    def energy(strain):
        strained = atoms.copy()
        strained.set_cell(cell @ (np.eye(3) + strain))
        strained.set_scaled_positions(scaled)
        graph = make_example(Frame(geometry(strained), None, None), 4.0).graph
        return predict(model, graph, gradients=False).energy.item()

    stress = []
    for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        strain = np.zeros((3, 3))
        strain[i, j] += 0.5 * h
        strain[j, i] += 0.5 * h
        stress.append((energy(strain) - energy(-strain)) / (2 * h * volume))
    batch = make_example(Frame(geometry(atoms), None, None, np.array(stress)), 4.0)
    assert np.abs(stress).max() > 1e-3
    assert frame_losses(predict(model, batch.graph), batch, LossTerms(0.0, 0.0, stress=1.0)).item() < 1e-12


def test_gradient_by_finite_differences(model):
    terms = LossTerms(0.0, 0.0, stress=0.7)
    batch = collate([make_example(labelled(copper(k)), 4.0) for k in range(2)])
    eager_step(model, terms)(batch)
    for weight, at in (
        (model.interactions[0].filter_network.dense1.weight, (2, 3)),
        (model.embedding.weight, (29, 1)),
        (model.readout1.weight, (0, 0)),
    ):
        expected, losses = weight.grad[at].item(), []
        for shift in (1e-5, -1e-5):
            with torch.no_grad():
                weight[at] += shift
            losses.append(frame_losses(predict(model, batch.graph), batch, terms).mean().item())
            with torch.no_grad():
                weight[at] -= shift
        assert abs(expected) > 1e-6
        assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(expected, rel=1e-5)


@pytest.mark.skipif(not can_compile(), reason="no C++ compiler")
def test_compiled_and_eager_gradients_agree(make_model):
    """Of batches in which another frame has no stress than in the one the step was compiled for."""
    model, terms = make_model(**NETWORK), LossTerms(0.01, 1.0, stress=0.5)
    frames = [labelled(copper(k)) for k in range(4)]
    step = compiled_step(model, terms, one_shape=False)
    for chosen in (
        [frames[0], frames[1]._replace(stress=None)],
        [frames[2]._replace(stress=None, forces=None), frames[3]._replace(energy=None)],
    ):
        batch = collate([make_example(f, 4.0) for f in chosen])
        loss = eager_step(model, terms)(batch)
        expected = [p.grad.clone() for p in model.parameters()]
        assert step(batch).item() == pytest.approx(loss.item(), rel=1e-5)
        for parameter, gradient in zip(model.parameters(), expected, strict=True):
            assert (parameter.grad - gradient).abs().max().item() <= 1e-4 * gradient.abs().max().item() + 1e-7


def test_networks_side_by_side(make_model):
    models = [make_model(seed, **NETWORK).double() for seed in range(2)]
    batches = [
        collate([make_example(f, 4.0) for f in (labelled(copper(0)), without_stress())]),
        collate([make_example(f, 4.0) for f in (without_stress(), labelled(copper(1, (2, 1, 1))), without_stress())]),
    ]
    terms = LossTerms(0.1, 1.0, stress=0.5)
    alone = [eager_step(m, terms)(b).item() for m, b in zip(models, batches, strict=True)]
    assert eager_step(SideBySide(models), terms)(side_by_side(batches)).tolist() == pytest.approx(alone, rel=1e-12)


# --- training -----------------------------------------------------------------------------------------------------


def trained(folder, stress_weight, missing=()):
    frames = [labelled(copper(seed)) for seed in range(40)]
    frames = [f._replace(stress=None) if k in missing else f for k, f in enumerate(frames)]
    config = RunConfig(
        name="x",
        data=DataConfig(file="x"),
        model=SchNetConfig(**{**NETWORK, "n_features": 16}),
        training=TrainingConfig(
            steps=150,
            validate_every=75,
            batch_size=4,
            compile=False,
            stress_weight=stress_weight,
            ema=0.9,
            learning_rate=1e-2,
        ),
    )
    split = TrainingSplit(np.arange(32), np.arange(32, 40))
    return train(config, Dataset(frames, "copper", "0" * 64, "eV, Å"), split, folder)


def test_training_on_stress_lowers_its_errors(tmp_path, learning_curves):
    without, with_stress = (trained(tmp_path / str(weight), weight) for weight in (0.0, 1.0))
    assert with_stress.best.errors.stress_rmse < 0.3 * without.best.errors.stress_rmse
    assert with_stress.best.errors.n_stresses == 8
    rows = list(csv.DictReader((tmp_path / "1.0" / "metrics.csv").read_text().splitlines()))
    last = with_stress.history[-1].errors
    assert float(rows[-1]["stress_mae_meV_per_A3"]) == pytest.approx(1000 * last.stress_mae, abs=1e-5)
    # 1 eV/Å³ is e/1e-30 Pa.
    assert float(rows[-1]["stress_rmse_GPa"]) == pytest.approx(160.21766 * last.stress_rmse, rel=1e-4)
    assert "GPa" in describe(with_stress.history[-1])
    assert (tmp_path / "1.0" / "learning_curve.png").stat().st_size > 0


def test_frames_without_stress_are_trained_on_too(tmp_path):
    result = trained(tmp_path / "run", 1.0, missing=range(0, 40, 2))
    assert (result.best.errors.n_frames, result.best.errors.n_stresses) == (8, 4)
    assert result.history[-1].errors.stress_rmse < result.history[0].errors.stress_rmse


# --- tables, cards and pictures -----------------------------------------------------------------------------------


def test_errors_by_hand():
    stress = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], np.zeros(6)])
    reference = np.array([[0.0, 2.0, 3.0, 4.0, 5.0, 3.0], np.full(6, np.nan)])
    errors = compute_errors(np.array([1, 1]), np.zeros(2), None, np.zeros((2, 3)), None, stress, reference)
    assert errors.stress_mae == pytest.approx(4 / 6, rel=1e-15)
    assert errors.stress_rmse == pytest.approx(np.sqrt(10 / 6), rel=1e-15)
    assert errors.n_stresses == 1
    mae, _ = errors.rows()
    assert (mae.name, mae.unit, mae.other_unit) == ("stress component MAE", "meV/Å³", "GPa")
    assert mae.value == pytest.approx(4000 / 6, rel=1e-12)
    assert mae.other == pytest.approx(4 / 6 * 160.21766, rel=1e-6)
    assert pytest.approx(1 / units.GPa, rel=1e-15) == GPA


def test_a_card_of_before_there_were_stresses_is_read():
    """As every entry that was shipped until then."""
    from pydantic import TypeAdapter

    old = {
        "n_frames": 5,
        **dict.fromkeys(("energy_mae", "energy_rmse", "energy_per_atom_mae", "energy_per_atom_rmse"), 0.1),
        "force_mae": 0.2,
        "force_rmse": 0.3,
    }
    metrics = TypeAdapter(Metrics).validate_python({"calibration": None, "test": old})
    assert metrics.test == Errors(5, 0.1, 0.1, 0.1, 0.1, 0.2, 0.3)
    assert metrics.test.counts() == "5 frames"


def test_evaluate_draws_the_stress(tmp_path, model):
    from schnet_ase.evaluation.parity import Comparison, parity

    frames = [labelled(copper(0)), labelled(copper(1))._replace(stress=None)]
    e = evaluate(model, make_examples(frames, range(2), 4.0))
    compared = [e.reference_energy, e.energy, e.reference_forces, e.forces, e.reference_stress, e.stress]
    parity(Comparison(*compared), "with", tmp_path / "with.png")
    parity(Comparison(*compared[:4], None, e.stress), "without", tmp_path / "without.png")
    from matplotlib.image import imread

    shapes = [imread(tmp_path / f"{name}.png").shape for name in ("with", "without")]
    assert shapes[0][1] == pytest.approx(1.5 * shapes[1][1], abs=2)
