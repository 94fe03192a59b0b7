"""Frames that lack some of the labels: what is there is trained on, and counts, and nothing else does."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from schnet_ase import SchNet, SchNetConfig
from schnet_ase.data import Dataset, Frame, TrainingSplit
from schnet_ase.data.batches import batch_to, collate, make_example, make_examples
from schnet_ase.errors import CalibrationError, TrainingError
from schnet_ase.evaluation.evaluate import evaluate, join
from schnet_ase.evaluation.reliability import reliability
from schnet_ase.geometry.system import geometry
from schnet_ase.inference.forces import predict
from schnet_ase.training import TrainingConfig, train
from schnet_ase.training.config import DataConfig, RunConfig
from schnet_ase.training.normalization import fit_normalization
from schnet_ase.training.step.loss import LossTerms, eager_step, evaluation_loss, frame_losses
from schnet_ase.training.step.padding import side_by_side
from schnet_ase.uncertainty.metrics import compute_errors
from tests.support.ensembles import calibrated, simulate
from tests.support.frames import labelled_ethanol, write_run

SMALL = SchNetConfig(n_features=8, n_interactions=1, n_rbf=8, cutoff=4.0, gamma=None, envelope="polynomial")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SchNet(SMALL).double()


@pytest.fixture
def frames():
    """All labels, forces alone, an energy alone, and none."""
    rng = np.random.default_rng(0)
    made = []
    for name, energy, forces in (
        ("H2O", True, True),
        ("CH4", False, True),
        ("CH3CH2OH", True, False),
        ("NH3", False, False),
    ):
        atoms = molecule(name)
        atoms.rattle(0.05, rng=rng)
        labels = float(rng.normal()), rng.normal(size=(len(atoms), 3))
        made.append(Frame(geometry(atoms), labels[0] if energy else None, labels[1] if forces else None))
    return made


@pytest.mark.parametrize("kind", ["squared", "absolute"])
def test_loss_is_the_mean_over_frames_of_the_terms_that_are_there(model, frames, kind):
    power = 2 if kind == "squared" else 1
    terms = []
    for frame in frames:
        prediction = predict(model, make_example(frame, 4.0).graph)
        term = 0.0
        if frame.energy is not None:
            term += 0.3 * abs(prediction.energy.item() - frame.energy) ** power
        if frame.forces is not None:
            lengths = np.linalg.norm(prediction.forces.numpy() - frame.forces, axis=1)
            term += 0.7 * (lengths**power).mean()
        terms.append(term)
    assert terms[3] == 0.0
    assert min(terms[:3]) > 0.0
    batch = collate([make_example(f, 4.0) for f in frames])
    loss = frame_losses(predict(model, batch.graph), batch, LossTerms(0.3, 0.7, kind)).mean().item()
    assert loss == pytest.approx(sum(terms) / 4, rel=1e-12, abs=0.0 if power == 2 else 1e-4)
    evaluation = evaluate(model, make_examples(frames, range(4), 4.0), batch_size=3)
    assert evaluation_loss(evaluation, LossTerms(0.3, 0.7, kind)) == pytest.approx(loss, rel=1e-12)


def test_gradient_is_finite_and_that_of_the_labels_that_are_there(model, frames):
    eager_step(model, LossTerms(0.3, 0.7))(collate([make_example(f, 4.0) for f in frames]))
    together = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    parts = [torch.zeros_like(p) for p in model.parameters()]
    for frame, rho, weight in ((frames[0], 0.3, 0.7), (frames[1], 0.0, 0.7), (frames[2], 0.3, 0.0)):
        eager_step(model, LossTerms(rho, weight))(collate([make_example(frame, 4.0)]))
        for part, parameter in zip(parts, model.parameters(), strict=True):
            if parameter.grad is not None:
                part += parameter.grad / 4
    for gradient, part in zip(together, parts, strict=True):
        assert gradient is not None
        assert torch.isfinite(gradient).all()
        torch.testing.assert_close(gradient, part, rtol=1e-10, atol=1e-12)


def test_a_prediction_that_is_nan_is_not_taken_for_a_missing_label(model, frames):
    with torch.no_grad():
        model.readout2.bias.fill_(math.nan)
    batch = collate([make_example(frames[0], 4.0)])
    assert math.isnan(eager_step(model, LossTerms(0.3, 0.0))(batch).item())
    assert math.isnan(evaluation_loss(evaluate(model, [batch]), LossTerms(0.3, 0.0)))


def test_batches_have_the_same_arrays_whatever_the_labels(frames):
    bare = frames[0]._replace(energy=None, forces=None)
    for with_labels, without in ((frames[0], bare), (frames[0]._replace(stress=np.ones(6)), bare)):
        a, b = make_example(with_labels, 4.0), make_example(without, 4.0)
        for name in ("energy", "forces", "virial"):
            assert getattr(a, name).shape == getattr(b, name).shape
            assert getattr(a, name).dtype == getattr(b, name).dtype
    moved = batch_to(collate([make_example(f, 4.0) for f in frames]), torch.device("meta"))
    assert all(part.device.type == "meta" for part in moved[1:])


def test_networks_side_by_side(frames):
    """Filled up to as many atoms, partly labelled shares have the losses they have alone."""
    from schnet_ase.training.step.side_by_side import SideBySide

    models = []
    for seed in range(2):
        torch.manual_seed(seed)
        models.append(SchNet(SMALL).double())
    batches = [collate([make_example(f, 4.0) for f in share]) for share in (frames[:3], frames[2:])]
    terms = LossTerms(0.3, 0.7)
    alone = [eager_step(m, terms)(b).item() for m, b in zip(models, batches, strict=True)]
    losses = eager_step(SideBySide(models), terms)(side_by_side(batches))
    assert losses.tolist() == pytest.approx(alone, rel=1e-12)


def test_errors_count_what_is_there():
    """Three frames of 1, 2 and 1 atoms: the first has no energy, the second no forces."""
    errors = compute_errors(
        np.array([1, 2, 1]),
        np.array([5.0, 3.0, -1.0]),
        np.array([np.nan, 1.0, -2.0]),
        np.full((4, 3), 0.5),
        np.array([[0.5, 0.5, 3.5], *np.full((2, 3), np.nan), [0.5, 1.5, 0.5]]),
    )
    assert (errors.n_frames, errors.n_energies, errors.n_forces, errors.n_stresses) == (3, 2, 2, 0)
    assert errors.energy_mae == 1.5
    assert errors.energy_per_atom_mae == 1.0
    assert errors.energy_rmse == pytest.approx(math.sqrt((4 + 1) / 2), rel=1e-15)
    assert errors.force_mae == pytest.approx((3 + 1) / 6, rel=1e-15)
    assert errors.force_rmse == pytest.approx(math.sqrt((9 + 1) / 6), rel=1e-15)
    assert errors.counts() == "3 frames, 2 with energies, 2 with forces"


def test_an_evaluation_of_all_frames_has_the_errors_of_the_labelled_ones(model, frames):
    errors = evaluate(model, make_examples(frames, range(4), 4.0), batch_size=2).errors()
    with_energy = evaluate(model, make_examples(frames, [0, 2], 4.0)).errors()
    with_forces = evaluate(model, make_examples(frames, [0, 1], 4.0)).errors()
    assert errors.energy_mae == with_energy.energy_mae
    assert errors.energy_per_atom_rmse == with_energy.energy_per_atom_rmse
    assert errors.force_rmse == with_forces.force_rmse
    assert (errors.n_energies, errors.n_forces) == (2, 2)


def test_a_label_that_only_one_part_has_stays(model, frames):
    parts = [evaluate(model, make_examples(frames, [k], 4.0)) for k in (1, 2)]
    assert parts[0].reference_energy is None
    whole = join(parts)
    np.testing.assert_array_equal(whole.reference_energy, [np.nan, frames[2].energy])
    np.testing.assert_array_equal(np.isnan(whole.reference_forces), [[False] * 3] * 5 + [[True] * 3] * 9)
    assert join(parts[:1]).reference_energy is None


def test_reference_energies_are_those_of_the_frames_with_energies(model):
    """2 e_H + e_O = -10 and 4 e_H + e_C = -20, e_H + e_N + ... unknown: least squares over the known ones."""
    water, methane, ammonia = (geometry(molecule(name)) for name in ("H2O", "CH4", "NH3"))
    hydrogen = geometry(molecule("H2"))
    frames = [
        Frame(water, -10.0, None),
        Frame(methane, -20.0, None),
        Frame(ammonia, None, np.ones((4, 3))),
        Frame(hydrogen, -2.0, None),
    ]
    fit_normalization(model, frames)
    found = {z: model.reference[z].item() for z in (1, 6, 8, 7)}
    assert found == pytest.approx({1: -1.0, 6: -16.0, 8: -8.0, 7: 0.0}, abs=1e-9)
    assert model.elements == (1, 6, 7, 8)


def test_stress_alone_leaves_the_scale_at_one(model):
    fit_normalization(model, [Frame(geometry(bulk("Cu")), None, None, np.ones(6))])
    assert model.scale.item() == 1.0
    assert model.elements == (29,)


# --- training -----------------------------------------------------------------------------------------------------


def dataset(missing_energy=(), missing_forces=()):
    made = []
    for k, atoms in enumerate(labelled_ethanol(24)):
        energy = None if k in missing_energy else atoms.get_potential_energy()
        forces = None if k in missing_forces else atoms.get_forces()
        made.append(Frame(geometry(atoms), energy, forces))
    return Dataset(made, "ethanol", "0" * 64, "eV, Å")


SPLIT = TrainingSplit(np.arange(16), np.arange(16, 24))


def run(data, folder, **training):
    fields = {"steps": 30, "validate_every": 15, "batch_size": 4, "compile": False, **training}
    config = RunConfig(name="x", data=DataConfig(file="x"), model=SMALL, training=TrainingConfig(**fields))
    return train(config, data, SPLIT, folder)


def test_a_training_takes_what_is_there(tmp_path):
    result = run(dataset(missing_energy=range(0, 24, 2), missing_forces=(1, 3, 17)), tmp_path / "run")
    errors = result.best.errors
    assert (errors.n_frames, errors.n_energies, errors.n_forces) == (8, 4, 7)
    losses = [row.validation_loss for row in result.history]
    assert losses[-1] < losses[0]


def test_a_label_that_no_frame_has_changes_nothing_but_its_term(tmp_path):
    """Energies weighted but in no frame: the training is that of forces alone, to the bit."""
    data = dataset(missing_energy=range(24))
    weights = [
        run(data, tmp_path / str(rho), energy_weight=rho, force_weight=1.0).model.state_dict() for rho in (0.0, 0.5)
    ]
    for a, b in zip(*(w.values() for w in weights), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("use", "missing"), [("train", range(16)), ("validate", range(16, 24))])
def test_no_label_that_counts_is_an_error(tmp_path, use, missing):
    with pytest.raises(TrainingError, match=f"frames to {use} on none has a label that the loss counts"):
        run(dataset(missing_forces=missing), tmp_path / "run", energy_weight=0.0)


# --- calibration --------------------------------------------------------------------------------------------------


def partly_labelled(errors, without_energy, without_forces):
    n = errors.n_atoms
    energy, forces = errors.energy_error.copy(), errors.force_errors.copy()
    energy[list(without_energy)] = np.nan
    forces[np.isin(np.repeat(np.arange(len(n)), n), list(without_forces))] = np.nan
    return errors._replace(energy_error=energy, force_errors=forces)


def subset(errors, keep):
    n = errors.n_atoms
    atoms = np.isin(np.repeat(np.arange(len(n)), n), keep)
    return errors._replace(
        n_atoms=n[keep],
        numbers=errors.numbers[atoms],
        energy_std=errors.energy_std[keep],
        forces_std=errors.forces_std[atoms],
        deviation=errors.deviation[atoms],
        energy_error=errors.energy_error[keep],
        force_errors=errors.force_errors[atoms],
    )


def test_calibration_is_that_of_the_frames_with_the_label():
    whole = simulate(np.random.default_rng(1), 60)
    partly = calibrated(partly_labelled(whole, range(10), range(50, 60)))
    assert partly.energy == calibrated(subset(whole, np.arange(10, 60))).energy
    assert partly.forces == calibrated(subset(whole, np.arange(50))).forces
    assert partly.element_factors == calibrated(subset(whole, np.arange(50))).element_factors
    assert partly.largest_deviations == calibrated(whole).largest_deviations


def test_reliability_is_that_of_the_frames_with_the_label():
    whole = simulate(np.random.default_rng(2), 60)
    calibration = calibrated(simulate(np.random.default_rng(3), 60))
    partly = reliability(partly_labelled(whole, range(10), range(50, 60)), calibration)
    energy = reliability(subset(whole, np.arange(10, 60)), calibration).energy
    forces = reliability(subset(whole, np.arange(50)), calibration).forces
    assert partly.energy.raw.coverage == energy.raw.coverage
    assert partly.energy.conformal.half_width == energy.conformal.half_width
    assert partly.forces.raw.coverage == forces.raw.coverage
    assert partly.forces.conformal.miscalibration_area == forces.conformal.miscalibration_area


def test_a_label_on_too_few_frames_has_no_half_widths(caplog):
    whole = simulate(np.random.default_rng(1), 60)
    with caplog.at_level("WARNING", "schnet_ase"):
        calibration = calibrated(partly_labelled(whole, range(55), ()))
    assert calibration.energy is None
    assert calibration.forces == calibrated(whole).forces
    assert "no half-widths for energies: 5 calibration frames are too few" in caplog.text


def test_single_atoms_do_not_count_for_forces():
    """Every network has no force on an only atom: no spread, and no error."""
    rng = np.random.default_rng(4)
    whole = simulate(rng, 60)
    atoms = whole._replace(
        n_atoms=np.concatenate([whole.n_atoms, np.ones(5, dtype=int)]),
        numbers=np.concatenate([whole.numbers, np.ones(5, dtype=int)]),
        energy_std=np.concatenate([whole.energy_std, np.full(5, 0.01)]),
        energy_error=np.concatenate([whole.energy_error, np.full(5, 0.01)]),
        forces_std=np.concatenate([whole.forces_std, np.zeros((5, 3))]),
        deviation=np.concatenate([whole.deviation, np.zeros(5)]),
        force_errors=np.concatenate([whole.force_errors, np.zeros((5, 3))]),
    )
    found, expected = calibrated(atoms), calibrated(whole)
    assert found.forces == expected.forces
    assert found.largest_deviations == expected.largest_deviations
    assert found.energy.n_frames == 65


def test_single_atoms_alone_cannot_be_calibrated_on():
    with pytest.raises(CalibrationError, match="0 calibration frames are too few"):
        calibrated(simulate(np.random.default_rng(4), 60, n_atoms=1))


def test_one_atom_in_a_cell_is_a_frame_like_others(model):
    """Its pairs are with its own images, which pull alike on both sides."""
    example = make_example(Frame(geometry(bulk("Cu")), -1.0, None), 4.0)
    assert len(example.graph.pairs.first) > 0
    assert predict(model, example.graph).forces.abs().max().item() < 1e-10
    assert math.isfinite(eager_step(model, LossTerms(0.3, 0.7))(example).item())


# --- a file -------------------------------------------------------------------------------------------------------


def write_partly_labelled(path):
    """Frames 0 and 1 are isolated atoms with an energy, frame 2 has forces alone, frame 3 an energy alone."""
    frames = [Atoms("C"), Atoms("H"), *labelled_ethanol(22)]
    for k, atoms in enumerate(frames):
        if k < 2:
            atoms.info["config_type"] = "IsolatedAtom"
            atoms.calc = SinglePointCalculator(atoms, energy=(4.0, 1.5)[k])
        elif k == 2:
            atoms.calc = SinglePointCalculator(atoms, forces=atoms.get_forces())
        elif k == 3:
            atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy())
    write(path, frames, format="extxyz")


def test_the_commands_take_a_partly_labelled_file(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    config = write_run(tmp_path)
    write_partly_labelled(tmp_path / "ethanol.extxyz")
    weights = "[training]\nconfig_type_weights = { IsolatedAtom = 0.5, Default = 1 }\n"
    config.write_text(config.read_text().replace("[training]\n", weights).replace("steps = 60", "steps = 20"))
    status, out, err = run("train", str(config), "--output", "run")
    assert status == 0, err
    status, out, err = run("evaluate", "run/best.safetensors", "ethanol.extxyz", "--output", "parity.png")
    assert status == 0, err
    assert "(24 frames, 23 with energies, 21 with forces)" in out
    assert (tmp_path / "parity.png").stat().st_size > 0
