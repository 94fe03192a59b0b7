"""Frames that are only trained on, each fold its own, and the benchmark that makes some with an ensemble."""

from dataclasses import replace

import numpy as np
import pytest
import teacher_frames
from ase.io import write
from click.testing import CliRunner

from schnet_ase import SchNetCalculator
from schnet_ase.cli import cli
from schnet_ase.data import Dataset, Frame, TrainingSplit, read_dataset
from schnet_ase.data.batches import make_training_examples, same_shape
from schnet_ase.errors import CalibrationError, ConfigError, DataError, TrainingError
from schnet_ase.evaluation.leakage import content, unseen_frames
from schnet_ase.geometry.system import Geometry, geometry
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import read_card
from schnet_ase.registry.checkpoint import load_checkpoint, read_provenance
from schnet_ase.training import crossval, load_config, train_from_config, tune
from schnet_ase.training.distill import dynamics
from schnet_ase.training.run import load_extra, load_frames
from schnet_ase.training.single import train
from tests.support.frames import TOML, labelled_ethanol, write_ethanol, write_run

TWO_FOLDS = TOML.replace("folds = 4", "folds = 2").replace("calibration = 10", "calibration = 0").replace("60", "20")
EXTRA = TWO_FOLDS.replace('test = "', 'extra = "more-{fold}.extxyz"\ntest = "')


def test_each_fold_has_its_own(tmp_path):
    config = load_config(write_run(tmp_path, TWO_FOLDS))
    plain = crossval(config, tmp_path / "plain", tmp_path / "models", workers=1)
    files = [write_ethanol(tmp_path / f"more-{k}.extxyz", 6, seed=10 + k) for k in (1, 2)]
    (tmp_path / "extra.toml").write_text(EXTRA.replace("ethanol-emt", "more"))
    card = crossval(load_config(tmp_path / "extra.toml"), tmp_path / "run", tmp_path / "models", workers=1)
    assert (plain.data.extra, card.data.extra) == (None, "more-{fold}.extxyz")
    assert card.data.n_frames == 40
    for file, before, member in zip(files, plain.members, card.members, strict=True):
        alone, provenance = (read_provenance(c.path / m.file) for c, m in ((plain, before), (card, member)))
        assert alone["extra_sha256"] is None
        assert provenance["extra_sha256"] == sha256(file)
        for key in ("training_frames", "validation_frames"):
            assert provenance[key] == alone[key], "the folds are those of a run without"
        weights, others = (load_checkpoint(c.path / m.file).state_dict() for c, m in ((plain, before), (card, member)))
        assert any((weights[name] != others[name]).any() for name in weights)
    with pytest.raises(CalibrationError, match="trained or validated on each of the 6 frames"):
        unseen_frames(card, read_dataset(files[0]))
    assert len(unseen_frames(plain, read_dataset(files[0]))) == 6
    judged = replace(load_config(tmp_path / "run.toml"), name="judged")
    judged = replace(judged, data=replace(judged.data, file=str(files[0]), test=None))
    with pytest.raises(TrainingError, match=r"was trained on all of more-1\.extxyz, as its data\.extra"):
        crossval(judged, tmp_path / "judged", tmp_path / "models", initial=card.path, workers=1)
    shown = CliRunner().invoke(cli, ["models", "show", str(card.path)])
    assert "trained also on" in shown.output
    assert "more-{fold}.extxyz" in shown.output


@pytest.mark.parametrize("stream", [False, True])
def test_they_count_as_all_others(tmp_path, stream):
    """The weights are those of a training on one file with all frames, from weights that bring their scale.

    By forces alone: reference energies are refitted to a run's own frames, not to those that other models labelled.
    """
    write_ethanol(tmp_path / "more-1.extxyz", 6, seed=11)
    write_ethanol(tmp_path / "more-2.extxyz", 6, seed=12)
    config = load_config(write_run(tmp_path, EXTRA))
    config = replace(config, data=replace(config.data, stream=stream))
    dataset, plain = load_frames(config.data.file, config), TrainingSplit(np.arange(30), np.arange(30, 40))
    start = train(config, dataset, plain, tmp_path / "start").path
    extra = load_extra(config, 0, dataset)
    config = replace(config, training=replace(config.training, energy_weight=0.0))
    beside = train(config, dataset, plain, tmp_path / "beside", extra=extra, initial=start)
    joined = Dataset([*dataset.frames, *extra.frames], "joined", "0", dataset.units)
    split = TrainingSplit(np.array([*range(30), *range(40, 46)]), plain.validation)
    within = train(config, joined, split, tmp_path / "within", initial=start)
    without = train(config, dataset, plain, tmp_path / "without", initial=start)
    for name, weights in load_checkpoint(within.path).state_dict().items():
        assert name == "reference" or (load_checkpoint(beside.path).state_dict()[name] == weights).all(), name
    assert beside.best.validation_loss != without.best.validation_loss


def test_other_extra_frames_are_another_training(tmp_path):
    write_ethanol(tmp_path / "more.extxyz", 6, seed=11)
    config = load_config(write_run(tmp_path, EXTRA.replace("more-{fold}", "more")))
    train_from_config(config, tmp_path / "run")
    write_ethanol(tmp_path / "more.extxyz", 6, seed=12)
    with pytest.raises(TrainingError, match="holds a training with other extra_sha256"):
        train_from_config(config, tmp_path / "run")


def test_frames_that_are_kept_for_something_else_are_refused(tmp_path):
    config = write_run(tmp_path, EXTRA)
    with pytest.raises(ConfigError, match=r"data\.extra is 'more-1\.extxyz', but there is no file"):
        load_config(config)
    write_ethanol(tmp_path / "more-1.extxyz", 6, seed=11)
    with pytest.raises(DataError, match=r"more-2\.extxyz: no such file"):
        crossval(load_config(config), tmp_path / "run", tmp_path / "models", workers=1)
    for seed, n, what in ((1, 1, "1 of its frames are"), (0, 40, "20 of its frames are")):  # of the tests, of all folds
        write_ethanol(tmp_path / "more-2.extxyz", n, seed=seed)
        with pytest.raises(
            DataError, match=f"more-2.extxyz: {what} also for validation, calibration or tests of fold 2"
        ):
            crossval(load_config(config), tmp_path / "run", tmp_path / "models", workers=1)
    write(tmp_path / "more-2.extxyz", labelled_ethanol(2, name="CH3CN"))
    with pytest.raises(DataError, match=r"contains N, but ethanol\.extxyz does not"):
        crossval(load_config(config), tmp_path / "run", tmp_path / "models", workers=1)
    assert not (tmp_path / "run").exists(), "nothing was trained"


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        (lambda config, folder: crossval(config, folder, folder / "models", workers=1), 18),
        (train_from_config, 4),
        (tune, 18),
    ],
)
def test_no_command_trains_on_frames_that_it_judges_by(tmp_path, command, kept):
    """Of 40: `train` validates on a tenth; of a fold it is 8, and 10 calibrate."""
    search = "[tune]\ntrials = 1\ntraining.learning_rate = { low = 1e-3, high = 2e-3 }\n"
    config = write_run(tmp_path, TOML.replace('test = "', 'extra = "ethanol.extxyz"\ntest = "') + search)
    with pytest.raises(DataError, match=f"ethanol.extxyz: {kept} of its frames are also for validation"):
        command(load_config(config), tmp_path / "run")


def test_lattices_of_one_atom_are_frames_of_their_own():
    one, other = (
        Frame(Geometry(np.array([29]), np.zeros((1, 3)), a * np.eye(3), np.ones(3, bool)), 0.0, None) for a in (3, 4)
    )
    assert content(one) != content(other)
    assert content(one) == content(one._replace(energy=1.0))


def test_labels_are_in_the_unit_of_their_own_file(tmp_path):
    """Whatever `file` was said to be in: an .npz that says eV has eV."""
    config = load_config(write_run(tmp_path, TWO_FOLDS.replace('test = "', 'energy_unit = "kcal/mol"\ntest = "')))
    atoms = labelled_ethanol(1)[0]
    labels = {"E": [atoms.get_potential_energy()], "F": [atoms.get_forces()], "e_unit": "eV"}
    np.savez(tmp_path / "more.npz", z=atoms.numbers, R=[atoms.positions], **labels)
    config = replace(config, data=replace(config.data, extra=str(tmp_path / "more.npz")))
    (frame,) = load_extra(config, 0, load_frames(config.data.file, config)).frames
    assert frame.energy == pytest.approx(atoms.get_potential_energy())


def test_frames_of_one_molecule_stay_of_one_shape():
    """As many pairs in all examples, so that one compiled function serves them."""
    own, more = (
        [Frame(geometry(a), a.get_potential_energy(), a.get_forces()) for a in labelled_ethanol(6, seed, 0.3)]
        for seed in (0, 1)
    )
    alone = [{len(e.graph.pairs.first) for e in make_training_examples(f, range(6), 2.4)} for f in (own, more)]
    assert alone[0] != alone[1], "by themselves they have not"
    assert same_shape(make_training_examples(own, range(6), 2.4, more))


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """An entry, its data, and eight frames that its members labelled."""
    folder = tmp_path_factory.mktemp("teacher")
    toml = TOML.replace("steps = 60", "steps = 20")
    card = crossval(load_config(write_run(folder, toml)), folder / "run", folder / "models", workers=1)
    arguments = ["--frames", "8", "--temperature", "30", "--output", str(folder / "teacher")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamics, "SETTLE", 20)
        result = CliRunner().invoke(teacher_frames.main, [str(card.path), *arguments])
    assert result.exit_code == 0, result.output
    return folder, card


def test_each_member_labels_for_its_fold(taught):
    folder, card = taught
    data = [read_dataset(folder / "teacher" / f"ethanol-emt_fold-{k}.npz") for k in (1, 2, 3, 4)]
    for frames, member in zip(data, card.members, strict=True):
        assert len(frames.frames) == 8
        for frame in frames.frames:
            atoms = frame.atoms()
            atoms.calc = SchNetCalculator(card.path / member.file, dtype="float64")
            assert frame.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
            assert frame.forces == pytest.approx(atoms.get_forces(), abs=1e-4)
    for one, other in zip(data[0].frames, data[1].frames, strict=True):
        assert np.array_equal(one.geometry.positions, other.geometry.positions)
        assert one.energy != other.energy


def test_the_labels_can_be_trained_on(taught):
    folder, card = taught
    toml = TOML.replace("60", "20").replace('test = "', 'extra = "teacher/*_fold-{fold}.npz"\ntest = "')
    (folder / "student.toml").write_text(toml.replace("ethanol-emt", "student"))
    student = crossval(
        load_config(folder / "student.toml"), folder / "s", folder / "models", workers=1, initial=card.path
    )
    assert read_card(student.path).data.extra == "*_fold-{fold}.npz"


@pytest.mark.parametrize("entry", ["water", "qm9-u0"])
def test_what_cannot_be_labelled_is_refused(tmp_path, entry):
    result = CliRunner().invoke(teacher_frames.main, [entry, "--output", str(tmp_path)])
    assert result.exit_code == 2
    assert "expected an ensemble for a molecule" in result.output or "was not trained on forces" in result.output
    assert result.output.count("\n") == 1
