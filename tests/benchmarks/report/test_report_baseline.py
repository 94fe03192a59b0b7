"""The report's baseline and its comparison with SchNet, benchmarks/report/baseline.py: small, but whole."""

import copy
import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from click.testing import CliRunner
from report import _baseline, baseline
from report._baseline import Baseline, evaluate_baseline, predict_from_origin, train_baseline
from report._fit import BOTH, ENERGIES, FORCES, evaluate_schnet, names, read_case, read_cases, training_for

from schnet_ase.data import Dataset, Frame, read_dataset
from schnet_ase.data.batches import collate, make_examples
from schnet_ase.evaluation.evaluate import Evaluation
from schnet_ase.training.normalization import fit_normalization
from schnet_ase.training.step.loss import LossTerms, evaluation_loss
from tests.support.frames import write_ethanol


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("baseline")
    write_ethanol(folder / "ethanol.extxyz", 20)
    write_ethanol(folder / "test.extxyz", 6, seed=1)
    return folder


@pytest.fixture
def frames(folder):
    return read_dataset(folder / "test.extxyz").frames


@pytest.fixture
def case(folder):
    return read_case("ethanol", folder / "ethanol.extxyz", 4, 20)


def examples_of(case):
    """For training and for validation."""
    return [make_examples(case.dataset.frames, part.tolist(), None) for part in case.split]


@pytest.fixture
def model(make_model):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Baseline(make_model())


def test_parameters(model):
    assert sum(p.numel() for p in model.parameters()) == 1160


def test_forces_are_the_gradient(model, frames):
    """Of each of two molecules that are one batch, against finite differences of its own energy."""
    model.double()
    graph = collate(make_examples(frames, range(2), None)).graph
    forces = predict_from_origin(model, graph).forces
    step = 1e-6
    numerical = torch.zeros_like(forces)
    for atom in range(len(forces)):
        for axis in range(3):
            energies = []
            for sign in (1.0, -1.0):
                positions = graph.positions.clone()
                positions[atom, axis] += sign * step
                moved = predict_from_origin(model, graph._replace(positions=positions), gradients=False)
                energies.append(moved.energy[graph.system[atom]])
            numerical[atom, axis] = (energies[1] - energies[0]) / (2.0 * step)
    assert forces.abs().max() > 0.1
    torch.testing.assert_close(forces, numerical, rtol=0.0, atol=1e-6)


def test_energy_is_a_sum_over_atoms(model, frames):
    """Which do not know of each other, with the scale and the references of their elements."""
    model.double()
    graph = collate(make_examples(frames, range(2), None)).graph
    prediction = predict_from_origin(model, graph)
    a, g = model.embedding(graph.numbers), model.position(graph.positions)
    expected = torch.cat([a, g], dim=1) @ model.readout.weight[0] * model.scale + model.reference[graph.numbers]
    torch.testing.assert_close(prediction.energies, expected)
    torch.testing.assert_close(prediction.energy, torch.stack([part.sum() for part in expected.split(9)]))


def test_turned_frames_differ_for_the_baseline_alone(model, make_model, frames):
    turned = baseline.randomly_turned(frames)
    both = [evaluate_baseline(model, make_examples(f, range(len(f)), None)).energy for f in (frames, turned)]
    assert np.abs(both[0] - both[1]).min() > 1e-3
    before, after = (evaluate_schnet(make_model(), Dataset(f, "", "", "")).errors() for f in (frames, turned))
    assert after.energy_rmse == pytest.approx(before.energy_rmse, rel=1e-6)
    assert after.force_rmse == pytest.approx(before.force_rmse, rel=1e-5)


@pytest.mark.parametrize("target", [ENERGIES, FORCES, BOTH], ids=lambda target: target.name)
def test_a_uniform_field_is_learned(make_model, case, target):
    """What it can be: an energy of each atom's place."""
    field, rng = np.array([1.0, -2.0, 0.5]), np.random.default_rng(0)
    frames = []
    for frame in case.dataset.frames:
        positions = rng.normal(size=frame.forces.shape)
        geometry = frame.geometry._replace(positions=positions)
        frames.append(Frame(geometry, positions.sum(axis=0) @ -field, np.tile(field, (len(positions), 1))))
    case = case._replace(dataset=case.dataset._replace(frames=frames))
    normalized = make_model()
    fit_normalization(normalized, frames)
    torch.manual_seed(0)
    model = Baseline(normalized)
    terms = LossTerms(target.energy_weight, target.force_weight)
    before = evaluation_loss(evaluate_baseline(model, examples_of(case)[1]), terms)
    train_baseline(model, *examples_of(case), training_for(200, target), 0, lambda: None)
    after = evaluation_loss(evaluate_baseline(model, examples_of(case)[1]), terms)
    assert after < 0.1 * before


def test_weights_of_the_best_validation(model, case, monkeypatch):
    losses, passed = [3.0, 1.0, 2.0], []
    monkeypatch.setattr(_baseline, "evaluation_loss", lambda *arguments: losses[len(passed) - 1])
    train_baseline(
        model, *examples_of(case), training_for(3, BOTH), 0, lambda: passed.append(copy.deepcopy(model.state_dict()))
    )
    assert len(passed) == 3
    assert all(torch.equal(passed[1][name], tensor) for name, tensor in model.state_dict().items())
    assert not torch.equal(passed[1]["readout.weight"], passed[2]["readout.weight"])


def test_constant_of_energies_learned_from_forces():
    """It is open, and the validation frames give it, not those for tests."""
    reference = np.array([1.0, 2.0, 4.0])

    def off_by(shift):
        forces = np.zeros((3, 3))
        return Evaluation(
            n_atoms=np.ones(3, dtype=int),
            volume=np.zeros(3),
            energy=reference + shift,
            forces=forces,
            stress=np.full((3, 6), np.nan),
            reference_energy=reference,
            reference_forces=forces,
            reference_stress=None,
            numbers=np.ones(3, dtype=int),
            weight=np.ones(3),
        )

    assert baseline.errors(FORCES, off_by(7.5), off_by(7.0)).energy_mae == pytest.approx(0.5)
    assert baseline.errors(BOTH, off_by(7.5), off_by(7.0)).energy_mae == pytest.approx(7.5)


def invoke(*arguments, folder, runs):
    test = ["--test", str(folder / "test.extxyz")]
    output = ["--steps", "3", "--runs", str(runs), "--output", str(runs)]
    return CliRunner().invoke(baseline.main, [str(folder / "ethanol.extxyz"), *test, *output, *arguments])


def test_killed_and_resumed(folder, tmp_path, monkeypatch):
    """The same page, and no training of the baseline again."""
    whole = invoke(folder=folder, runs=tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    trained = []

    def killed(case, network, training, *arguments):
        if training.energy_weight == 0.0:
            raise KeyboardInterrupt
        return train(case, network, training, *arguments)

    def counted(*arguments):
        trained.append(arguments)
        train_one(*arguments)

    train, train_one = baseline.train_schnet, baseline.train_baseline
    monkeypatch.setattr(baseline, "train_baseline", counted)
    with monkeypatch.context() as patch:
        patch.setattr(baseline, "train_schnet", killed)
        assert invoke(folder=folder, runs=tmp_path / "killed").exit_code == 1
    assert len(trained) == 2
    assert invoke(folder=folder, runs=tmp_path / "killed").exit_code == 0
    assert len(trained) == 3
    pages = [(tmp_path / runs / "baseline.md").read_text() for runs in ("whole", "killed")]
    assert pages[0] == pages[1]
    with (tmp_path / "whole" / "baseline.csv").open() as file:
        header, *rows = csv.reader(file)
    assert [row[:2] for row in rows] == [["ethanol", target] for target in ("energies", "forces", "both")]
    assert all(" | ".join(row) in pages[0] for row in (header, *rows))
    for row in rows:
        assert float(row[5]) == pytest.approx(float(row[2]) / float(row[4]), abs=0.1)
    assert (tmp_path / "whole" / "baseline.png").read_bytes().startswith(b"\x89PNG")
    other = invoke("--steps", "4", folder=folder, runs=tmp_path / "whole")
    assert other.exit_code == 2
    assert "other training.steps" in other.output


def test_energies_alone(folder, tmp_path):
    frames = read(folder / "ethanol.extxyz", ":")
    for atoms in frames:
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy())
    file = tmp_path / "energies.extxyz"
    write(file, frames, format="extxyz")
    arguments = ["--held-out", "5", "--steps", "2", "--runs", str(tmp_path), "--output", str(tmp_path)]
    result = CliRunner().invoke(baseline.main, [str(file), *arguments])
    assert result.exit_code == 0, result.output
    with (tmp_path / "baseline.csv").open() as table:
        _, *rows = csv.reader(table)
    assert [row[:2] for row in rows] == [["energies", "energies"]]
    assert rows[0][6:] == ["–"] * 4


def test_a_file_for_one_test_and_frames_for_another(folder):
    data = [folder / "ethanol.extxyz"] * 2
    own, other = read_cases(data, [Path("4"), folder / "test.extxyz"], 10, 99)
    expected = read_case("own", data[0], 4, 10).test, read_dataset(folder / "test.extxyz")
    for case, dataset in zip((own, other), expected, strict=True):
        assert [f.energy for f in case.test.frames] == [f.energy for f in dataset.frames]


def test_frames_for_tests_are_kept_apart(folder):
    case = read_case("ethanol", folder / "ethanol.extxyz", 4, 10)
    seen = [case.dataset.frames[i].geometry.positions for part in case.split for i in part]
    assert [len(part) for part in case.split] == [8, 2]
    assert len(case.test.frames) == 4
    assert not any(np.array_equal(frame.geometry.positions, old) for frame in case.test.frames for old in seen)


def test_files_for_tests_that_do_not_fit(folder, tmp_path):
    atoms = read(folder / "test.extxyz")
    del atoms[-1]
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.ones((len(atoms), 3)))
    write(tmp_path / "radical.extxyz", atoms, format="extxyz")
    data = str(folder / "ethanol.extxyz")
    for arguments, said in (
        ([data, "--test", str(tmp_path / "radical.extxyz")], "has other atoms than"),
        ([data, data, "--test", data], "1 files for tests of 2 data sets"),
    ):
        result = CliRunner().invoke(baseline.main, arguments)
        assert result.exit_code == 2
        assert said in result.output


def test_names(folder):
    a, b, c = folder / "x" / "train.xyz", folder / "y" / "train.xyz", folder / "y" / "ethanol.npz"
    assert names([a, b, c]) == ["x-train", "y-train", "ethanol"]
