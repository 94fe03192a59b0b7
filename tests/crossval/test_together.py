"""Folds trained together: each has the loss and the gradient of its own network on its own batch, and its own run."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from torch.testing import assert_close

from schnet_ase import SchNet, SchNetConfig
from schnet_ase.crossval.folds import FoldTask, train_fold
from schnet_ase.crossval.gpu import train_together
from schnet_ase.crossval.run import train_folds
from schnet_ase.data import Frame
from schnet_ase.data.batches import batch_to, collate, make_example
from schnet_ase.geometry.system import geometry
from schnet_ase.registry.checkpoint import read_tensors
from schnet_ase.training import load_config
from schnet_ase.training.run import load_frames
from schnet_ase.training.step.compiled import compiled_step
from schnet_ase.training.step.loss import LossTerms, eager_step
from schnet_ase.training.step.padding import side_by_side
from schnet_ase.training.step.side_by_side import SideBySide
from schnet_ase.training.subsets import split_for_crossval
from tests.support.frames import TOML, write_run

# The eigenbases of SOAP make more of rounding than Adam's division does.
TRAIN = TOML.replace("steps = 60", 'steps = 30\noptimizer = "adamw"')
CRYSTAL = Atoms("NaCl", [[0, 0, 0], [1.4, 1.5, 1.7]], cell=[[3.1, 0, 0], [0.7, 3.4, 0], [-0.4, 0.9, 3.8]], pbc=True)
SHARES = {
    "of one shape": [["CH3CH2OH"] * 3, ["CH3CH2OH"] * 3, ["CH3CH2OH"] * 3],
    "of molecules": [["CH3CH2OH", "H2O"], ["C6H6", "CH4"], ["H2O", "H2"]],
    "of more and fewer frames": [["CH3CH2OH"] * 2, ["CH3CH2OH"] * 4, ["H2O"]],
    "of crystals too": [["crystal", "crystal"], ["CH3CH2OH", "crystal"], ["H2O", "CH4"]],
    "of pairs that are few and many": [["C6H6", "C6H6"], ["H", "H"], ["H2", "H"]],
}


def frames(names, rng, forces=True):
    for name in names:
        atoms = CRYSTAL.copy() if name == "crystal" else Atoms("H") if name == "H" else molecule(name)
        atoms.rattle(0.05, rng=rng)
        labels = rng.normal(size=(len(atoms), 3)) if forces else None
        yield Frame(geometry(atoms), float(rng.normal()), labels)


def networks(n, dtype, **changes):
    """Of one config, all else their own."""
    config = SchNetConfig(
        **{"n_features": 12, "n_interactions": 2, "n_rbf": 10, "cutoff": 3.5, "gamma": None, "envelope": "cosine"}
        | changes
    )
    for k in range(n):
        torch.manual_seed(k)
        model = SchNet(config)
        model.scale.fill_(0.5 + k)
        model.reference.copy_(torch.linspace(-1.0, k, config.max_z, dtype=torch.float64))
        with torch.no_grad():  # biases and the weights of norms are all alike at the start
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        yield model.to(dtype)


def examples(names, seed, weight=1.0, cutoff=3.5, forces=True):
    made = [make_example(frame, cutoff) for frame in frames(names, np.random.default_rng(seed), forces)]
    made[0] = made[0]._replace(weight=torch.full((1,), weight, dtype=torch.float64))
    return made


def gradient(model):
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()])


def check_alike(models, batches, make_step, tolerance):
    """Loss and gradient of each alone and of all side by side."""
    expected = []
    for model, batch in zip(models, batches, strict=True):
        expected.append((eager_step(model, LossTerms(0.3, 1.0))(batch), gradient(model)))
    together = SideBySide(models)
    losses = make_step(together, LossTerms(0.3, 1.0))(side_by_side(batches))
    together.hand_out_gradients()
    assert losses.shape == (len(models),)
    for model, loss, (own_loss, own_gradient) in zip(models, losses, expected, strict=True):
        assert loss.item() == pytest.approx(own_loss.item(), rel=tolerance)
        difference = torch.linalg.vector_norm(gradient(model) - own_gradient)
        assert difference <= tolerance * torch.linalg.vector_norm(own_gradient)
    assert len({loss.item() for loss in losses}) == len(models), "a test of networks and batches that differ"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shares", SHARES)
def test_loss_and_gradient_are_those_of_each_alone(shares, dtype):
    batches = [collate(examples(names, seed, weight=0.5 + seed)) for seed, names in enumerate(SHARES[shares])]
    models = list(networks(3, dtype))
    check_alike(models, batches, eager_step, 1e-12 if dtype == torch.float64 else 2e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "rms"},
        {"norm": "layer"},
        {"envelope": "none"},
        {"interaction_bias": False, "filter_activation_last": True},
        {"radial": "exponential", "envelope": "polynomial", "readout_features": 5, "activation": "silu"},
    ],
    ids=str,
)
@pytest.mark.parametrize("shares", ["of one shape", "of molecules"])
def test_every_kind_of_network(shares, changes):
    models = list(networks(3, torch.float64, **changes))
    cutoff = models[0].config.pair_cutoff
    batches = [collate(examples(names, seed, cutoff=cutoff)) for seed, names in enumerate(SHARES[shares])]
    check_alike(models, batches, eager_step, 1e-12)


def test_compiled():
    batches = [collate(examples(names, seed)) for seed, names in enumerate(SHARES["of more and fewer frames"])]
    check_alike(list(networks(3, torch.float64)), batches, compiled_step, 1e-12)


def test_energies_alone():
    batches = [collate(examples(names, k, forces=False)) for k, names in enumerate(SHARES["of molecules"])]
    models = list(networks(3, torch.float64))
    together = SideBySide(models)
    losses = eager_step(together, LossTerms(0.3, 0.0))(side_by_side(batches))
    for model, batch, loss in zip(models, batches, losses, strict=True):
        assert loss.item() == pytest.approx(eager_step(model, LossTerms(0.3, 0.0))(batch).item(), rel=1e-12)


@pytest.mark.parametrize("shares", SHARES)
def test_nothing_is_left_on_another_device(shares):
    """As a GPU would complain of; `meta` computes nothing and complains of the same."""
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(3, device="meta") + torch.ones(3)
    batches = [collate(examples(names, seed)) for seed, names in enumerate(SHARES[shares])]
    models = [model.to("meta") for model in networks(3, torch.float32, norm="layer")]
    together = SideBySide(models)
    losses = eager_step(together, LossTerms(0.3, 1.0))(batch_to(side_by_side(batches), torch.device("meta")))
    together.hand_out_gradients()
    assert losses.device.type == "meta"
    assert {p.grad.device.type for model in models for p in model.parameters()} == {"meta"}


def test_a_change_of_the_models_is_one_of_all_side_by_side():
    batches = [collate(examples(names, seed)) for seed, names in enumerate(SHARES["of one shape"])]
    models = list(networks(3, torch.float64))
    step = eager_step(SideBySide(models), LossTerms(0.3, 1.0))
    before = step(side_by_side(batches))
    with torch.no_grad():
        for parameter in models[1].parameters():
            parameter.mul_(1.01)
    after = step(side_by_side(batches))
    assert (before == after).tolist() == [True, False, True]
    assert after[1].item() == pytest.approx(eager_step(models[1], LossTerms(0.3, 1.0))(batches[1]).item(), rel=1e-12)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Folds trained one after the other: their tasks, and their results."""
    folder = tmp_path_factory.mktemp("alone")
    config = load_config(write_run(folder, TRAIN))
    split = split_for_crossval(config, load_frames(config.data.file, config))
    tasks = [FoldTask(config, k, fold, folder / "run", None, "cpu") for k, fold in enumerate(split.folds)]
    return tasks, [train_fold(task, lambda step, row: None) for task in tasks]


def tasks_in(folder, tasks):
    return [task._replace(run=folder) for task in tasks]


def check_the_same(results, alone):
    for result, other in zip(results, alone[1], strict=True):
        assert [row.step for row in result.history] == [row.step for row in other.history]
        for row, own in zip(result.history, other.history, strict=True):
            assert row.validation_loss == pytest.approx(own.validation_loss, rel=1e-4)
            assert row.training_loss == pytest.approx(own.training_loss, rel=1e-4)
        state = other.model.state_dict()
        for name, tensor in result.model.state_dict().items():
            assert_close(tensor, state[name], rtol=1e-3, atol=2e-4)


def test_folds_trained_together_are_those_trained_alone(alone, tmp_path):
    reports = []
    tasks = tasks_in(tmp_path, alone[0])
    check_the_same(train_together(tasks, reports.append), alone)
    steps = {k: [r.step for r in reports if r.fold == k] for k in range(1, 5)}
    assert steps == {fold: list(range(1, 31)) for fold in range(1, 5)}
    assert [r.fold for r in reports if r.row is not None] == [1, 2, 3, 4] * 3


def test_either_goes_on_with_what_the_other_began(alone, tmp_path):
    """Together until step 15, a fold alone to its end, and the rest together again."""
    tasks = tasks_in(tmp_path, alone[0])

    class Stopped(Exception):
        pass

    def stop(progress):
        if progress.step == 15:
            raise Stopped

    with pytest.raises(Stopped):
        train_together(tasks, stop)
    assert [read_tensors(t.folder / "state.safetensors", "training state").header["step"] for t in tasks] == [10] * 4
    train_fold(tasks[2], lambda step, row: None)
    steps = []
    check_the_same(train_together(tasks, lambda p: steps.append((p.fold, p.step))), alone)
    assert steps[:4] == [(1, 10), (2, 10), (3, 30), (4, 10)]
    assert [step for fold, step in steps if fold == 3] == [30], "finished"
    assert [step for fold, step in steps if fold == 1] == list(range(10, 31))


def test_a_fold_out_of_patience_leaves_the_others(tmp_path):
    often = TRAIN.replace("ema = 0.9\nvalidate_every = 10", "ema = 0.0\nvalidate_every = 1\npatience = 1")
    config = load_config(write_run(tmp_path, often))
    split = split_for_crossval(config, load_frames(config.data.file, config))
    tasks = [FoldTask(config, k, fold, tmp_path / "run", None, "cpu") for k, fold in enumerate(split.folds)]
    alone = [train_fold(task._replace(run=tmp_path / "alone"), lambda step, row: None) for task in tasks]
    lengths = [len(result.history) for result in alone]
    assert len(set(lengths)) > 1, "a test of folds that end at different steps"
    assert [len(result.history) for result in train_together(tasks, lambda progress: None)] == lengths


@pytest.mark.parametrize(
    ("device", "dropout", "workers", "expected"),
    [
        ("cuda", 0.0, None, "together"),
        ("cuda:1", 0.0, None, "together"),
        ("cuda", 0.1, None, "alone"),
        ("cuda", 0.0, 1, "alone"),
        ("cpu:0", 0.0, 1, "alone"),
    ],
)
def test_a_gpu_trains_the_folds_together(tmp_path, monkeypatch, device, dropout, workers, expected):
    """Unless told how many at a time, or where dropout would make each fold's random numbers depend on the others."""
    config = load_config(write_run(tmp_path))
    config = replace(config, model=replace(config.model, dropout=dropout))
    split = split_for_crossval(config, load_frames(config.data.file, config))
    module = sys.modules[train_folds.__module__]  # the package's name for it is that of a function
    monkeypatch.setattr(module, "train_together", lambda tasks, report: ["together"])
    monkeypatch.setattr(module, "train_fold", lambda task, report: "alone")
    assert train_folds(config, split.folds, tmp_path / "run", device=device, workers=workers)[0] == expected
