"""Distillation: whose labels are learned, which frames, from where it resumes, and what the entry has in the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from schnet_ase import SchNetCalculator, SchNetConfig, SchNetEnsembleCalculator, load_model
from schnet_ase.cli import cli
from schnet_ase.data import Frame, LabelOptions, read_dataset
from schnet_ase.errors import ConfigError, DataError, RegistryError, TrainingError
from schnet_ase.geometry.system import geometry
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import Structure, read_card, write_card
from schnet_ase.registry.checkpoint import read_provenance
from schnet_ase.registry.loading import locate
from schnet_ase.training import load_config, train_from_config
from schnet_ase.training.distill import Sampling, distill, dynamics, load_student_config
from schnet_ase.training.distill.dynamics import load_runs, sample
from schnet_ase.training.distill.labelled import load_labelled
from schnet_ase.training.distill.own import calibration_of, own_frames
from schnet_ase.training.distill.teacher import Teacher
from tests.support.entries import one_line
from tests.training.distill.conftest import SAMPLING, STUDENT

CODE = """
import os, signal, sys
from pathlib import Path
from schnet_ase.training.distill import dynamics
from tests.training.distill.conftest import SAMPLING
from schnet_ase.training.distill import distill, load_student_config
dynamics.SETTLE = dynamics.SPACING = 10
folder, toml, stage, last = sys.argv[1:]
def report(name, done, total, note):
    if name == stage and done == int(last):
        os.kill(os.getpid(), signal.SIGKILL)
config = load_student_config("ethanol-emt", Path(toml))
distill("ethanol-emt", Path(folder), config, sampling=SAMPLING, report=report)
"""


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "student.toml"
    file.write_text(STUDENT)
    return file


def make(entry, config, folder, **options):
    return distill(str(entry), folder, load_student_config(str(entry), config), **{"sampling": SAMPLING, **options})


def sampled(entry, folder, sampling=SAMPLING):
    teacher = Teacher.of(str(entry))
    return teacher, sample(teacher, sampling, teacher.starts([], 1), folder, lambda n: None)


def test_labels_are_the_ensembles_means(entry, tmp_path):
    _, files = sampled(entry, tmp_path / "frames")
    calculator = SchNetEnsembleCalculator(entry, dtype="float64", engine="autograd")
    frames = [frame for file in files for frame in load_labelled(file).frames()]
    assert len(frames) == 12
    for frame in frames:
        atoms = frame.atoms()
        atoms.calc = calculator
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
        assert frame.forces == pytest.approx(atoms.get_forces(), abs=1e-4)
        assert frame.stress is None


def test_runs_have_temperatures_over_the_range_and_differ():
    sampling = Sampling(10_000, (300.0, 1000.0))
    assert sum(sampling.runs) == 10_000
    kelvin = [sampling.temperature(k) for k in range(len(sampling.runs))]
    assert min(kelvin) == 300.0
    assert max(kelvin) < 1000.0
    assert np.diff(sorted([*kelvin, 1000.0])).max() < 2.7 * 700.0 / len(kelvin), "no gap in the range"
    assert sampling.kept_apart == 2


def test_frames_of_one_run_are_on_one_side(entry, config, tmp_path):
    made = make(entry, config, tmp_path / "run")
    files = sorted((tmp_path / "run" / "frames").glob("*.npz"))
    training, validation = load_runs(files, SAMPLING.kept_apart)
    assert len(training) == len(files) - 1
    assert len(validation) == 1
    seen = read_provenance(made.training.path)
    n = sum(len(run.energy) for run in training)
    assert seen["training_frames"] == list(range(n))
    assert seen["validation_frames"] == list(range(n, 12))


@pytest.mark.parametrize("kills", [("frames", 7), ("student", 12)])
def test_a_killed_distillation_resumes_with_the_same_numbers(entry, config, tmp_path, kills):
    code = [sys.executable, "-c", CODE, str(tmp_path / "killed"), str(config)]
    root = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3))
    environment = {**os.environ, "PYTHONPATH": root}
    stage, last = kills
    done = subprocess.run([*code, stage, str(last)], env=environment, cwd=root, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "killed" / "frames").glob("*.npz")}
    assert len(kept) == (4 if stage == "frames" else 10), "the fifth run was under way"
    assert read_card(entry).student is None
    resumed = make(entry, config, tmp_path / "killed")
    assert all(file.stat().st_mtime_ns == time for file, time in kept.items())
    shutil.copytree(entry, tmp_path / "once" / "ethanol-emt")
    whole = make(tmp_path / "once" / "ethanol-emt", config, tmp_path / "whole")
    one, other = (load_model(made.card.path).state_dict() for made in (whole, resumed))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_the_entry_keeps_it(entry, config, taught, tmp_path, monkeypatch):
    before = {file.name: sha256(file) for file in entry.glob("fold-*")}
    made = make(entry, config, tmp_path / "run", data_root=taught, command="schnet-ase distill x")
    card = read_card(entry)
    assert card.student == made.student
    assert card.student.sha256 == sha256(entry / "student.safetensors")
    assert card.student.command == "schnet-ase distill x"
    assert card.members == made.card.members
    assert {file.name: sha256(file) for file in entry.glob("fold-*")} == before
    atoms = card.structure.atoms()
    atoms.calc = SchNetCalculator("ethanol-emt")
    forces = atoms.get_forces()
    atoms.calc = SchNetCalculator("ethanol-emt/student")
    assert np.array_equal(atoms.get_forces(), forces)
    seen = read_provenance(entry / "student.safetensors")
    assert card.data.sha256 in seen["initial_data"], "whoever judges it on these frames has to know"


def test_errors_are_those_of_its_own_predictions(entry, config, taught, tmp_path):
    made = make(entry, config, tmp_path / "run", data_root=taught)
    calculator = SchNetCalculator("ethanol-emt", dtype="float64", engine="autograd")
    errors = []
    for frame in read_dataset(taught / "test.extxyz").frames:
        atoms = frame.atoms()
        atoms.calc = calculator
        errors.append(np.abs(atoms.get_forces() - frame.forces).mean())
    assert made.student.test.force_mae == pytest.approx(np.mean(errors), rel=1e-4)
    ratio = made.student.ratio(made.card.metrics.test)
    assert ratio == pytest.approx(np.mean(errors) / made.card.metrics.test.force_mae, rel=1e-4)


def test_half_widths_hold_the_students_errors(entry, config, taught, tmp_path):
    """The scores of the calibration are the student's own energy errors over the members' moderated spread."""
    made = make(entry, config, tmp_path / "run", data_root=taught)
    calculator = SchNetCalculator("ethanol-emt", dtype="float64", engine="autograd")
    calibration = calculator.calibration
    assert calibration == made.student.calibration != made.card.calibration
    assert calibration.members == made.card.calibration.members
    assert calibration.threshold() == made.card.calibration.threshold()
    ensemble = SchNetEnsembleCalculator("ethanol-emt", dtype="float64", engine="autograd")
    scores = []
    frames = read_dataset(taught / "ethanol.extxyz").frames
    for i in read_provenance(entry / "fold-1.safetensors")["calibration_frames"]:
        atoms = frames[i].atoms()
        spread = ensemble.get_property("energy_std", atoms)
        error = abs(calculator.get_potential_energy(atoms) - frames[i].energy)
        scores.append(error / float(calibration.energy.scale(spread)))
    np.testing.assert_allclose(calibration.energy.scores, sorted(scores), rtol=1e-3)
    own = own_frames(made.card, taught, LabelOptions())
    twice = own._replace(calibration=[*own.calibration, own.calibration[0]])
    assert calibration_of(made.card, load_model("ethanol-emt/student"), twice) == calibration
    assert SchNetCalculator("ethanol-emt/fold-1").calibration is None
    held = []
    for frame in read_dataset(taught / "test.extxyz").frames:
        atoms = frame.atoms()
        deviation = ensemble.get_property("forces_deviation", atoms)
        width = calibration.forces_half_width(deviation, atoms.numbers, calibration.coverage)
        held += (np.linalg.norm(calculator.get_forces(atoms) - frame.forces, axis=1) <= width).tolist()
    assert made.student.coverage == pytest.approx(np.mean(held), abs=1.5 / len(held))
    assert f"hold {100.0 * made.student.coverage:.1f} % of its force errors" in "\n".join(made.student.lines(None))


def test_own_frames_are_neither_of_calibration_nor_of_tests(entry, config, taught, tmp_path):
    own = own_frames(read_card(entry), taught, LabelOptions())
    data = read_dataset(taught / "ethanol.extxyz")
    kept = read_provenance(entry / "fold-1.safetensors")["calibration_frames"]
    positions = {frame.geometry.positions.tobytes() for frame in own.learned}
    assert positions == {f.geometry.positions.tobytes() for i, f in enumerate(data.frames) if i not in kept}
    assert not positions & {f.geometry.positions.tobytes() for f in own.test.frames}
    made = make(entry, config, tmp_path / "run", data_root=taught)
    assert len(read_provenance(made.training.path)["training_frames"]) == 30 + 11
    assert "and 30 that the members learned from" in made.student.frames


def test_data_of_another_entry_are_refused(entry, config, taught, tmp_path):
    shutil.copy(taught / "test.extxyz", tmp_path / "ethanol.extxyz")
    with pytest.raises(DataError, match="its SHA-256 is .* and the card of ethanol-emt says") as caught:
        make(entry, config, tmp_path / "run", data_root=tmp_path)
    one_line(caught)
    assert not (tmp_path / "run").exists()


def test_frames_that_left_the_world_are_not_learned_from(entry, tmp_path, monkeypatch):
    """A guard that stops the first try of each run after its first frame."""
    made = []

    class Guard(dynamics.Guard):
        def __init__(self, *arguments, **keywords):
            super().__init__(*arguments, **keywords)
            made.append(self)

        def __call__(self, step):
            return "it was told to" if len(made) % 2 and step > 10 else super().__call__(step)

    sampling = Sampling(20, (20.0, 60.0))
    _, whole = sampled(entry, tmp_path / "whole", sampling)
    monkeypatch.setattr(dynamics, "Guard", Guard)
    _, files = sampled(entry, tmp_path / "frames", sampling)
    assert len(made) == 2 * len(files), "each run was begun again"
    for file, other in zip(files, whole, strict=True):
        frames, first = load_labelled(file), load_labelled(other)
        assert len(frames.energy) == 2
        assert not set(frames.energy) & set(first.energy), "nothing of the first try"


def test_a_deviation_beyond_the_monitors_ends_a_run(entry, tmp_path, quick):
    teacher = Teacher.of(str(entry))
    strict = teacher._replace(failed_above=0.0)
    with pytest.raises(
        TrainingError, match="left its training domain 20 times, the last time because the members differ by"
    ) as caught:
        sample(strict, SAMPLING, teacher.starts([], 1), tmp_path / "frames", lambda n: None)
    assert "give lower --temperatures" in one_line(caught)
    frame = Frame(geometry(teacher.card.structure.atoms()), None, None)
    assert strict.label([frame]) == []
    assert len(teacher.label([frame])) == 1


def test_another_distillation_is_not_mixed_with_this_one(entry, config, tmp_path):
    make(entry, config, tmp_path / "run")
    for other in (Sampling(13, (20.0, 60.0)), Sampling(12, (20.0, 50.0)), Sampling(12, (20.0, 60.0), seed=1)):
        with pytest.raises(TrainingError, match="has frames of a distillation with other") as caught:
            make(entry, config, tmp_path / "run", sampling=other)
        one_line(caught)


def test_the_same_command_again_changes_nothing(entry, config, tmp_path):
    first = make(entry, config, tmp_path / "run")
    again = make(entry, config, tmp_path / "run")
    assert again.student == first.student


def test_an_ensemble_of_one(taught, config, tmp_path, quick, monkeypatch):
    toml = (taught / "run.toml").read_text().replace("ethanol-emt", "single").replace("calibration = 10\n", "")
    (taught / "single.toml").write_text(toml)
    train_from_config(load_config(taught / "single.toml"), tmp_path / "t", models=tmp_path / "models")
    made = make(tmp_path / "models" / "single", config, tmp_path / "run")
    assert made.student.validation.n_frames == 1
    assert load_model(tmp_path / "models" / "single").elements == (1, 6, 8)


@pytest.mark.parametrize(
    ("table", "n_features", "from_member"),
    [("n_features = 20", 20, True), ("n_features = 8\nn_interactions = 1", 8, False)],
)
def test_larger_and_smaller_students(entry, config, tmp_path, table, n_features, from_member):
    config.write_text(f"[model]\n{table}\n{STUDENT}")
    made = make(entry, config, tmp_path / "run")
    model = load_model("ethanol-emt")
    assert model.config.n_features == n_features
    assert (read_provenance(made.training.path)["initial_sha256"] is not None) == from_member
    for command in (["md", "--steps", "3", "--temperature", "0"], ["relax", "--fmax", "50"]):
        output = str(tmp_path / f"{command[0]}-of")
        result = CliRunner().invoke(cli, [command[0], "ethanol-emt/student", *command[1:], "--output", output])
        assert result.exit_code == 0, result.output


def test_the_network_is_a_members_unless_said_otherwise(entry, config):
    member = locate(entry, student=False).model.config
    assert load_student_config(str(entry)).model == member
    config.write_text("[model]\nn_features = 20\n")
    assert load_student_config(str(entry), config).model == replace(member, n_features=20)
    config.write_text('[model]\npreset = "small"\nn_features = 20\n')
    assert load_student_config(str(entry), config).model == replace(SchNetConfig.small(), n_features=20)
    training = load_student_config(str(entry), config).training
    assert training == load_student_config(str(entry)).training
    assert training.batch_size == 10, "twice the members'"
    assert training.stress_weight == 0.0
    assert load_student_config("water").training.stress_weight > 0.0


def test_mistakes_in_the_configuration(entry, config):
    for text, reason in (
        ("[model]\nn_feature = 8\n", "key model.n_feature is unknown"),
        ("[training]\nstep = 8\n", "key training.step is unknown; did you mean steps?"),
        ("[data]\nfile = 'x'\n", "key data is unknown"),
        ("training = 3\n", "training"),
    ):
        config.write_text(text)
        with pytest.raises(ConfigError, match=reason) as caught:
            load_student_config(str(entry), config)
        one_line(caught)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ethanol-emd", "did you mean ethanol-emt"),
        ("ethanol-emt/fold-1", "not a registry entry"),
        ("qm9-u0", "was not trained on forces"),
    ],
)
def test_what_has_no_mean_to_learn(entry, config, tmp_path, name, reason):
    result = CliRunner().invoke(cli, ["distill", name, str(config), "--output", str(tmp_path / "run")])
    assert isinstance(result.exception, ValueError)
    assert reason in str(result.exception)
    assert len(str(result.exception).splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_an_entry_without_a_structure_or_of_more_systems(entry, config, tmp_path):
    card = read_card(entry)
    write_card(replace(card, structure=Structure((), (), card.structure.cell, card.structure.pbc)), entry)
    with pytest.raises(TrainingError, match="has no structure for dynamics to start from") as caught:
        make(entry, config, tmp_path / "run")
    one_line(caught)
    write_card(replace(card, data=replace(card.data, formulas=("C2H6O", "CH4O"))), entry)
    with pytest.raises(TrainingError, match="to start from CH4O, give --data-root, the folder of") as caught:
        make(entry, config, tmp_path / "run")
    one_line(caught)


def test_an_entry_that_cannot_be_written_to(entry, config, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != entry)
    with pytest.raises(RegistryError, match="cannot be written to; give --models") as caught:
        make(entry, config, tmp_path / "run")
    one_line(caught)
    assert not (tmp_path / "run").exists()
    made = make(entry, config, tmp_path / "run", models=tmp_path / "mine")
    assert made.card.path == tmp_path / "mine" / "ethanol-emt"
    assert read_card(entry).student is None
    assert {f.name for f in made.card.path.iterdir()} == {*made.card.files}
    assert load_model(made.card.path).config == load_model("ethanol-emt").config
    write_card(replace(made.card, members=made.card.members[:3], calibration=None), made.card.path)
    with pytest.raises(RegistryError, match="exists with other members") as caught:
        make(entry, config, tmp_path / "run", models=tmp_path / "mine")
    one_line(caught)


def test_killed_while_it_is_kept(entry, config, tmp_path, monkeypatch):
    """The card names a student only once its file is there, and an earlier one's no longer when it is replaced."""
    make(entry, config, tmp_path / "run")
    other = tmp_path / "other.toml"
    other.write_text(STUDENT.replace("20", "25"))

    def killed(*arguments, **keywords):
        raise KeyboardInterrupt

    for name in ("save_model", "sha256"):
        with monkeypatch.context() as patch:
            patch.setattr(f"schnet_ase.training.distill.keep.{name}", killed)
            with pytest.raises(KeyboardInterrupt):
                make(entry, other, tmp_path / "other")
        assert read_card(entry).student is None
        assert load_model("ethanol-emt/fold-1")
        assert locate("ethanol-emt").path.name.startswith("fold-")
    assert make(entry, other, tmp_path / "other").student.sha256 == sha256(entry / "student.safetensors")


def test_command_line(entry, config, taught, tmp_path):
    options = ["--frames", "12", "--temperatures", "20,60", "--data-root", str(taught), "--output", str(tmp_path / "r")]
    result = CliRunner().invoke(cli, ["distill", "ethanol-emt", str(config), *options])
    assert result.exit_code == 0, result.output
    assert "student on test frames (8 frames)" in result.output
    assert "times that of the mean of 4" in result.output
    for text in ("warm", "1,2,3", "", "300,nan"):
        again = CliRunner().invoke(cli, ["distill", "ethanol-emt", "--temperatures", text])
        assert again.exit_code != 0
    shown = CliRunner().invoke(cli, ["models", "show", "ethanol-emt"]).output
    assert "student, test" in shown
