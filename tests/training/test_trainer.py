"""Training: it learns, and it stops with advice."""

import csv
import dataclasses

import numpy as np
import pytest
import torch

from schnet_ase import SchNetCalculator
from schnet_ase.data import held_out, split_training
from schnet_ase.errors import DataError, TrainingError
from schnet_ase.registry.card import read_card
from schnet_ase.registry.checkpoint import read_provenance
from schnet_ase.training import TrainingConfig, load_config, train, train_from_config
from schnet_ase.training.run import load_frames
from schnet_ase.training.step.optimizer import learning_rate
from tests.support.frames import labelled_ethanol, write_run
from tests.support.trainings import configured, equal_weights, weights


@pytest.mark.parametrize(
    ("energy_weight", "force_weight", "steps"),
    [(0.01, 1.0, 200), (1.0, 0.0, 800), (0.0, 1.0, 200)],
    ids=["both", "energy", "forces"],
)
def test_it_learns(tmp_path, energy_weight, force_weight, steps):
    config = configured(tmp_path, steps=steps, energy_weight=energy_weight, force_weight=force_weight)
    result = train_from_config(config, tmp_path / "run")
    assert result.history[-1].training_loss < 0.25 * result.history[0].training_loss


def test_frames_of_the_same_file_for_tests(tmp_path):
    config = configured(tmp_path, steps=20)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, training=20, validation=6, test=9))
    result = train_from_config(config, tmp_path / "run")
    provenance = read_provenance(result.path)
    training, validation = set(provenance["training_frames"]), set(provenance["validation_frames"])
    assert (len(training), len(validation)) == (20, 6)
    tested = set(held_out(40, 9, config.seed).tolist())
    assert not tested & (training | validation)
    # The errors are those of the calculator on just these frames.
    labelled = labelled_ethanol(40)
    differences = []
    for k in sorted(tested):
        atoms = labelled[k].copy()
        atoms.calc = SchNetCalculator(result.model, dtype="float64", engine="autograd")
        differences.append(atoms.get_potential_energy() - labelled[k].get_potential_energy())
    assert result.test.n_frames == 9
    assert result.test.energy_mae == pytest.approx(np.abs(differences).mean(), rel=1e-4)


FRAMES = ("training_frames", "validation_frames")
SPLIT = "random, {training_frames} frames to train and {validation_frames} to validate on, seed 3"


def test_no_frames_for_tests(tmp_path):
    config = configured(tmp_path, steps=10)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, test=None))
    assert train_from_config(config, tmp_path / "run").test is None


def test_entry_with_one_member(tmp_path):
    """A single training can be registered: the weights, errors, seed and frames on the card are its own."""
    config = dataclasses.replace(configured(tmp_path), seed=3)
    result = train_from_config(config, tmp_path / "run", models=tmp_path / "models", command="the command")
    card = read_card(tmp_path / "models" / config.name)
    (member,) = card.members
    assert equal_weights(weights(card.path / member.file), weights(result.path))
    assert member.test == card.metrics.test == result.test
    assert member.validation.force_mae == pytest.approx(result.best.errors.force_mae, rel=1e-5)
    provenance, own = read_provenance(card.path / member.file), read_provenance(result.path)
    for key in ("seed", "data_sha256", "training_frames", "validation_frames"):
        assert provenance[key] == own[key]
    assert card.calibration is None
    assert (card.command, card.data.split) == ("the command", SPLIT.format(**{k: len(own[k]) for k in FRAMES}))
    forces = SchNetCalculator(card.path).get_forces(card.structure.atoms())
    assert np.abs(forces).max() < 0.05, "the structure on the card is relaxed"
    again = train_from_config(config, tmp_path / "run", models=tmp_path / "models")
    assert (again.history, again.test) == (result.history, result.test)
    with pytest.raises(TrainingError, match="an entry of this name exists, with other .*seed"):
        train_from_config(dataclasses.replace(config, seed=4), tmp_path / "other", models=tmp_path / "models")


def test_files_of_a_run(tmp_path, learning_curves):
    result = train_from_config(configured(tmp_path), tmp_path / "run")
    with open(tmp_path / "run" / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(r["step"]) for r in rows] == [10, 20, 30, 40, 50, 60]
    last = result.history[-1]
    assert float(rows[-1]["force_mae_meV"]) == pytest.approx(1000 * last.errors.force_mae, abs=1e-3)
    assert float(rows[-1]["energy_rmse_kcal_per_mol"]) == pytest.approx(23.0605 * last.errors.energy_rmse, rel=1e-3)
    assert (tmp_path / "run" / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    provenance = read_provenance(result.path)
    assert provenance["seed"] == 3
    assert not set(provenance["training_frames"]) & set(provenance["validation_frames"])
    assert provenance["validation"]["step"] == result.best.step
    assert result.model.elements == (1, 6, 8)


def test_seeds(tmp_path):
    config = configured(tmp_path)
    a = train_from_config(config, tmp_path / "a")
    b = train_from_config(config, tmp_path / "b")
    other = train_from_config(dataclasses.replace(config, seed=4), tmp_path / "c")
    assert equal_weights(weights(a.path), weights(b.path))
    assert not equal_weights(weights(a.path), weights(other.path))


def test_training_leaves_the_random_numbers_of_the_caller_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train_from_config(configured(tmp_path, steps=10), tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


def test_nan_loss_stops_with_advice(tmp_path):
    config = configured(tmp_path, schedule="report", learning_rate=1e30, ema=0.0)
    with pytest.raises(TrainingError, match=r"step \d+, batch of frames \[[\d, ]+\]; lower training.learning_rate"):
        train_from_config(config, tmp_path / "run")
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_nan_loss_after_a_validation_leaves_its_checkpoint(tmp_path, monkeypatch):
    config = configured(tmp_path)
    from schnet_ase.training.step import steps

    real = steps.eager_step

    def poisoned(*arguments):
        step, calls = real(*arguments), []

        def take(batch):
            calls.append(None)
            loss = step(batch)
            return loss * float("nan") if len(calls) == 25 else loss

        return take

    monkeypatch.setattr(steps, "eager_step", poisoned)
    with pytest.raises(TrainingError, match="step 25, batch"):
        train_from_config(config, tmp_path / "run")
    assert read_provenance(tmp_path / "run" / "best.safetensors")["validation"]["step"] == 20
    monkeypatch.undo()
    resumed = train_from_config(config, tmp_path / "run")
    assert resumed.history[-1].step == 60


@pytest.mark.parametrize("wanted", [True, None])
def test_a_machine_that_cannot_compile(tmp_path, monkeypatch, wanted):
    """Is an error where compiling is asked for, else a warning, and the step is eager."""
    from schnet_ase.training.step import steps

    def broken(*arguments, **named):
        def step(batch):
            raise RuntimeError("no such compiler\nand more of it")

        return step

    monkeypatch.setattr(steps, "compiled_step", broken)
    monkeypatch.setattr(steps, "can_compile", lambda: True)
    monkeypatch.setattr(steps, "STEPS_WORTH_COMPILING", 1)
    config = configured(tmp_path, compile=wanted)
    # Derivatives of this activation are not written out.
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, activation="tanh"))
    if wanted:
        with pytest.raises(TrainingError, match=r"be compiled \(no such compiler\); install a C\+\+ compiler"):
            train_from_config(config, tmp_path / "run")
    else:
        with pytest.warns(UserWarning, match=r"could not be compiled \(no such compiler\); it runs slower"):
            assert train_from_config(config, tmp_path / "run").history[-1].step == 60


def test_starting_from_an_earlier_training(tmp_path):
    config = configured(tmp_path)
    dataset, split = load_frames(config.data.file, config), split_training(40, 8, seed=0)
    first = train(config, dataset, split, tmp_path / "first")
    still = dataclasses.replace(config, training=dataclasses.replace(config.training, learning_rate=1e-12))
    second = train(still, dataset, split, tmp_path / "second", initial=first.path)
    # The reference energies are fitted again, which changes energies and no force.
    assert second.history[0].errors.force_mae == pytest.approx(first.best.errors.force_mae, rel=1e-5)

    def with_features(n):
        return dataclasses.replace(still, model=dataclasses.replace(config.model, n_features=n))

    F = config.model.n_features
    wider = train(with_features(F + 1), dataset, split, tmp_path / "wider", initial=first.path)
    assert wider.history[0].errors.force_mae == pytest.approx(first.best.errors.force_mae, rel=1e-5)
    with pytest.raises(TrainingError, match=r"another architecture; give a run with the same or a narrower \[model\]"):
        train(with_features(F - 1), dataset, split, tmp_path / "narrower", initial=first.path)


def test_early_stopping(tmp_path):
    config = configured(tmp_path, steps=400, learning_rate=1e-12, warmup=0, schedule="report", patience=2, ema=0.0)
    history = train_from_config(config, tmp_path / "run").history
    losses = [r.validation_loss for r in history]
    best = losses.index(min(losses))
    assert len(losses) - 1 - best == 2
    assert history[-1].step < 400


def test_weight_decay_shrinks_the_weights(tmp_path):
    plain = train_from_config(configured(tmp_path), tmp_path / "plain").model
    decayed = train_from_config(configured(tmp_path, weight_decay=20.0), tmp_path / "decayed").model
    assert decayed.embedding.weight.norm() < 0.9 * plain.embedding.weight.norm()


def test_clipping_changes_the_path(tmp_path):
    """Adam forgives a constant factor, so a clip that binds now and then must show in the weights."""
    plain = train_from_config(configured(tmp_path), tmp_path / "plain")
    clipped = train_from_config(configured(tmp_path, clip=1e-2), tmp_path / "clipped")
    assert not equal_weights(weights(plain.path), weights(clipped.path))


def test_missing_labels_are_refused_before_training(tmp_path):
    config = load_config(write_run(tmp_path))
    from ase.io import write

    write(tmp_path / "ethanol.extxyz", [a.copy() for a in labelled_ethanol(5)], format="extxyz")
    with pytest.raises(DataError, match="no frame has an energy"):
        train_from_config(config, tmp_path / "run")


def test_learning_rates():
    report = TrainingConfig(learning_rate=1e-3, schedule="report")
    assert learning_rate(0, report) == learning_rate(99_999, report) == 1e-3
    assert learning_rate(250_000, report) == pytest.approx(1e-3 * 0.96**2)
    assert [TrainingConfig(steps=n).warmup_steps for n in (5, 200, 10_000, 40_000)] == [0, 20, 1000, 1000]
    modern = TrainingConfig(steps=1000, learning_rate=1e-3, warmup=99)
    assert learning_rate(0, modern) == pytest.approx(1e-5)
    assert learning_rate(500, modern) == pytest.approx(5e-4)
    assert learning_rate(999, modern) < 1e-8
    assert max(learning_rate(s, modern) for s in range(1000)) <= 1e-3
