"""Training: it learns, it resumes with the same numbers, and it stops with advice."""

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from schnet_ase import SchNet, SchNetCalculator, SchNetConfig, load_model
from schnet_ase.data import Frame, held_out, split_training
from schnet_ase.errors import DataError, TrainingError
from schnet_ase.geometry.system import Geometry, geometry
from schnet_ase.registry.card import read_card
from schnet_ase.registry.checkpoint import read_provenance, read_tensors, write_tensors
from schnet_ase.training import TrainingConfig, load_config, train, train_from_config
from schnet_ase.training.normalization import fit_normalization
from schnet_ase.training.run import load_frames
from schnet_ase.training.step.optimizer import learning_rate
from tests.support.frames import labelled_ethanol, write_run


def configured(tmp_path, **training):
    config = load_config(write_run(tmp_path))
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **training))


def weights(path):
    return load_model(path).state_dict()


def equal_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


def test_an_element_beyond_the_embeddings_is_refused():
    frame = Frame(geometry(labelled_ethanol(1)[0]), -1.0, None)
    with pytest.raises(DataError, match=r"hold O, element 8; set model\.max_z, 8, above that"):
        fit_normalization(SchNet(SchNetConfig(max_z=8)), [frame])


class Killed(Exception):
    pass


def kill_at(step):
    def report(done, row):
        if done == step:
            raise Killed

    return report


def without_time(history):
    return [row._replace(seconds=0.0) for row in history]


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


def test_files_of_a_run(tmp_path):
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


@pytest.mark.parametrize(("dropout", "optimizer"), [(0.0, "adamw"), (0.2, "adamw"), (0.0, "soap")])
def test_resumed_equals_uninterrupted(tmp_path, dropout, optimizer):
    config = configured(tmp_path, optimizer=optimizer)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, dropout=dropout))
    whole = train_from_config(config, tmp_path / "whole")
    for step in (25, 41):
        with pytest.raises(Killed):
            train_from_config(config, tmp_path / "parts", report=kill_at(step))
    parts = train_from_config(config, tmp_path / "parts")
    assert without_time(parts.history) == without_time(whole.history)
    assert equal_weights(weights(parts.path), weights(whole.path))


def test_where_tensors_lie_in_the_file_does_not_matter(tmp_path):
    """Nor does the length of what is written before them, which is another in every run."""
    config = configured(tmp_path, optimizer="soap", steps=40, batch_size=4, ema=0.0)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, n_features=8, n_rbf=4))
    whole = train_from_config(config, tmp_path / "whole")
    for n in range(8):
        folder = tmp_path / f"parts-{n}"
        with pytest.raises(Killed):
            train_from_config(config, folder, report=kill_at(12))
        state = read_tensors(folder / "state.safetensors", "training state")
        header = {**state.header, "padding": 8 * n * "x"}
        write_tensors(folder / "state.safetensors", state.tensors, "training state", header)
        parts = train_from_config(config, folder)
        assert without_time(parts.history) == without_time(whole.history)
        assert equal_weights(weights(parts.path), weights(whole.path))


def test_kill_9_and_again(tmp_path):
    config = write_run(tmp_path)
    toml = config.read_text().replace("steps = 60", "steps = 150")
    config.write_text(toml)
    command = [sys.executable, "-m", "schnet_ase", "train", str(config), "--output"]
    process = subprocess.Popen([*command, str(tmp_path / "killed")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "state.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (tmp_path / "killed" / "state.safetensors").exists()
    killed = train_from_config(load_config(config), tmp_path / "killed")
    whole = train_from_config(load_config(config), tmp_path / "whole")
    assert killed.history[-1].step == 150
    assert equal_weights(weights(killed.path), weights(whole.path))


def test_a_finished_run_is_not_repeated(tmp_path):
    config = configured(tmp_path)
    first = train_from_config(config, tmp_path / "run")
    steps = []
    again = train_from_config(config, tmp_path / "run", report=lambda step, row: steps.append(step))
    assert steps == [60]
    assert again.history == first.history


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
    if wanted:
        with pytest.raises(TrainingError, match=r"be compiled \(no such compiler\); install a C\+\+ compiler"):
            train_from_config(config, tmp_path / "run")
    else:
        with pytest.warns(UserWarning, match=r"could not be compiled \(no such compiler\); it runs slower"):
            assert train_from_config(config, tmp_path / "run").history[-1].step == 60


def test_other_configuration_in_the_folder_is_refused(tmp_path):
    train_from_config(configured(tmp_path), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"other training\.learning_rate"):
        train_from_config(configured(tmp_path, learning_rate=1e-3), tmp_path / "run")


def test_other_labels_of_the_same_file_are_refused(tmp_path):
    config = configured(tmp_path)
    train_from_config(config, tmp_path / "run")
    for changed, said in (
        ({"energy_unit": "kcal/mol"}, "data_units"),
        ({"force_unit": "meV/Å"}, "data_units"),
        ({"energy_key": "energy"}, "energy_key"),
    ):
        other = dataclasses.replace(config, data=dataclasses.replace(config.data, **changed))
        with pytest.raises(TrainingError, match=f"other {said}"):
            train_from_config(other, tmp_path / "run")


def test_two_processes_in_one_folder(tmp_path):
    config = configured(tmp_path)

    def start_another(step, row):
        if step == 5:
            with pytest.raises(TrainingError, match="another process trains here"):
                train_from_config(config, tmp_path / "run")

    train_from_config(config, tmp_path / "run", report=start_another)


def test_starting_from_an_earlier_training(tmp_path):
    config = configured(tmp_path)
    dataset, split = load_frames(config.data.file, config), split_training(40, 8, seed=0)
    first = train(config, dataset, split, tmp_path / "first")
    still = dataclasses.replace(config, training=dataclasses.replace(config.training, learning_rate=1e-12))
    second = train(still, dataset, split, tmp_path / "second", initial=first.path)
    assert second.history[0].validation_loss == pytest.approx(first.best.validation_loss, rel=1e-4)

    def with_features(n):
        return dataclasses.replace(still, model=dataclasses.replace(config.model, n_features=n))

    F = config.model.n_features
    wider = train(with_features(F + 1), dataset, split, tmp_path / "wider", initial=first.path)
    assert wider.history[0].validation_loss == pytest.approx(first.best.validation_loss, rel=1e-4)
    with pytest.raises(
        TrainingError, match=r"another architecture; give a run of the same \[model\], or of a narrower"
    ):
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


def frame(numbers, energy):
    n = len(numbers)
    positions = np.arange(3.0 * n).reshape(n, 3)
    return Frame(Geometry(np.array(numbers), positions, np.zeros((3, 3)), np.zeros(3, bool)), energy, np.ones((n, 3)))


def test_reference_energies_of_several_compositions():
    """Least squares finds the elements' energies exactly where energies are sums of them."""
    e = {1: -13.6, 6: -1030.0, 8: -2041.0}
    compositions = [(1, 1, 8), (6, 1, 1, 1, 1), (6, 8, 8), (6, 6, 1, 1)]
    model = SchNet(SchNetConfig.small())
    fit_normalization(model, [frame(c, sum(e[z] for z in c)) for c in compositions])
    for z, energy in e.items():
        assert model.reference[z].item() == pytest.approx(energy, abs=1e-8)
    assert model.reference.count_nonzero() == 3
    assert model.elements == (1, 6, 8)


def test_reference_energies_of_one_composition():
    model = SchNet(SchNetConfig.small())
    fit_normalization(model, [frame((8, 1, 1), e) for e in (-2079.0, -2080.0, -2081.0)])
    assert model.reference[[1, 8]].tolist() == pytest.approx([-2080.0 / 3] * 2)
    assert model.scale.item() == pytest.approx(np.std([-1.0, 0.0, 1.0]) / np.sqrt(3))


def test_large_total_energies_lose_nothing(tmp_path):
    """Energies of -4e5 kcal/mol with differences of 1e-6 eV: float32 alone would round them to 1e-3 eV."""
    model = SchNet(SchNetConfig.small())
    base = -17346.0
    fit_normalization(model, [frame((8, 1, 1), base + d) for d in (0.0, 1.0)])
    with torch.no_grad():
        for parameter in model.readout2.parameters():
            parameter.zero_()
    from schnet_ase.geometry.graph import build_graph
    from schnet_ase.inference.forces import predict

    graph = build_graph(geometry(labelled_ethanol(1)[0])._replace(numbers=np.array([8] + [1] * 8)), None)
    energy = predict(model.float(), graph).energy.item()
    assert energy == pytest.approx(9 * (base + 0.5) / 3, abs=1e-9)
