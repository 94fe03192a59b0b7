"""Cross-validation: folds as promised, an entry that can be used, and nothing lost when it is interrupted."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from schnet_ase import SchNetEnsembleCalculator, list_models, load_model
from schnet_ase.data import held_out
from schnet_ase.errors import CalibrationError, RegistryError, TrainingError
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import read_card
from schnet_ase.registry.checkpoint import read_provenance
from schnet_ase.training import crossval, load_config
from schnet_ase.training.entry import relax
from schnet_ase.training.subsets import split_for_crossval
from tests.support.frames import TOML, labelled_ethanol, write_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of four small folds: its folder, the entries' folder and the card."""
    folder = tmp_path_factory.mktemp("crossval")
    config = load_config(write_run(folder))
    reports = []
    card = crossval(config, folder / "run", folder / "models", workers=2, command="the command", report=reports.append)
    return folder, card, reports


def test_frames_of_the_folds(finished):
    _, card, _ = finished
    validation, calibration = [], None
    for member in card.members:
        p = read_provenance(card.path / member.file)
        training, own = set(p["training_frames"]), set(p["validation_frames"])
        calibration = set(p["calibration_frames"])
        assert len(calibration) == 10
        assert training.isdisjoint(own)
        assert calibration.isdisjoint(training | own)
        assert training | own | calibration == set(range(40))
        validation += p["validation_frames"]
    assert sorted(validation) == sorted(set(range(40)) - calibration), "every frame is validated on once"


def test_frames_of_the_same_file_for_tests(tmp_path):
    toml = TOML.replace('test = "test.extxyz"', "test = 7\ntraining = 15\nfalse_flag_rate = 0.2").replace(
        "steps = 60", "steps = 10"
    )
    config = load_config(write_run(tmp_path, toml))
    card = crossval(config, tmp_path / "run", tmp_path / "models", workers=1)
    assert card.metrics.test.n_frames == 7
    assert "4 random folds over 15 frames, 10 kept for calibration" in card.data.split
    assert card.calibration.threshold() == card.calibration.threshold(0.2)
    tested, validated = set(held_out(40, 7, config.seed).tolist()), []
    for member in card.members:
        p = read_provenance(card.path / member.file)
        assert not tested & {*p["training_frames"], *p["validation_frames"], *p["calibration_frames"]}
        validated += p["validation_frames"]
    assert len(set(validated)) == len(validated) == 15


def test_card(finished):
    folder, card, _ = finished
    assert card == read_card(folder / "models" / "ethanol-emt")
    assert card.name == "ethanol-emt"
    assert card.elements == ("H", "C", "O")
    assert card.command == "the command"
    assert [m.file for m in card.members] == [f"fold-{k}.safetensors" for k in (1, 2, 3, 4)]
    for member in card.members:
        assert member.sha256 == sha256(card.path / member.file)
        assert member.seconds > 0
    energies = [a.get_potential_energy() for a in labelled_ethanol(40)]
    assert card.data.energy_min == pytest.approx(min(energies), abs=1e-6)
    assert card.data.energy_max == pytest.approx(max(energies), abs=1e-6)


def test_errors_of_the_card_are_those_of_the_calculator(finished, monkeypatch):
    folder, card, _ = finished
    monkeypatch.setenv("SCHNET_ASE_MODELS", str(folder / "models"))
    calculator = SchNetEnsembleCalculator("ethanol-emt", dtype="float64")
    energy, members, forces = [], [], []
    for atoms in labelled_ethanol(8, seed=1):
        reference = atoms.calc.results
        test = atoms.copy()
        test.calc = calculator
        energy.append(test.get_potential_energy() - reference["energy"])
        forces.append(test.get_forces() - reference["forces"])
        members.append(calculator.results["forces_ensemble"] - reference["forces"])
    errors = card.metrics.test
    assert errors.n_frames == 8
    assert errors.energy_mae == pytest.approx(np.abs(energy).mean(), rel=1e-4)
    assert errors.force_mae == pytest.approx(np.abs(forces).mean(), rel=1e-4)
    assert errors.force_rmse == pytest.approx(np.sqrt(np.square(forces).mean()), rel=1e-4)
    for m, member in enumerate(card.members):
        assert member.test.force_mae == pytest.approx(np.abs(np.array(members)[:, m]).mean(), rel=1e-4)


def test_the_entry_is_found_by_name(finished, monkeypatch):
    folder, card, _ = finished
    monkeypatch.setenv("SCHNET_ASE_MODELS", str(folder / "models"))
    assert "ethanol-emt" in [c.name for c in list_models()]
    assert load_model("ethanol-emt/fold-2").elements == (1, 6, 8)
    with pytest.raises(RegistryError, match="did you mean ethanol-emt"):
        load_model("ethanol-etm")


def test_progress_is_reported(finished):
    _, _, reports = finished
    for fold in (1, 2, 3, 4):
        rows = [r.row.step for r in reports if r.fold == fold and r.row is not None]
        assert rows == [10, 20, 30, 40, 50, 60]


def test_an_entry_is_not_overwritten(finished):
    folder, card, _ = finished
    config = load_config(folder / "run.toml")
    assert crossval(config, folder / "run", folder / "models") == card
    with pytest.raises(TrainingError, match="an entry of this name exists, with other .*training_frames"):
        crossval(replace(config, seed=4), folder / "other", folder / "models")


def test_finished_folds_are_not_trained_again(finished):
    """The same call into another folder of entries makes the same entry from what the run left."""
    folder, card, _ = finished
    reports = []
    again = crossval(
        load_config(folder / "run.toml"), folder / "run", folder / "again", workers=1, report=reports.append
    )
    assert {r.step for r in reports} == {60}
    for one, other in zip(again.members, card.members, strict=True):
        a, b = (load_model(c.path / m.file).state_dict() for c, m in ((again, one), (card, other)))
        assert all(torch.equal(a[name], b[name]) for name in b)
    assert again.metrics == card.metrics


def test_the_ensemble_is_calibrated_on_frames_that_no_fold_touched(finished):
    """The calibration on the card is that of the calculator's own spreads and errors on those frames."""
    _, card, _ = finished
    frames = labelled_ethanol(40)
    calculator = SchNetEnsembleCalculator(card.path, dtype="float64")
    assert calculator.calibration == card.calibration
    energies, forces, deviations = [], [], []
    for i in read_provenance(card.path / "fold-1.safetensors")["calibration_frames"]:
        atoms = frames[i].copy()
        atoms.calc = calculator
        error = atoms.get_potential_energy() - frames[i].get_potential_energy()
        # The largest error is the half-width itself, as float32 computed it.
        energies.append(abs(error) <= calculator.results["energy_uncertainty"] * (1 + 1e-3))
        length = np.linalg.norm(atoms.get_forces() - frames[i].get_forces(), axis=1)
        forces.append(np.mean(length <= calculator.results["forces_uncertainty"]))
        deviations.append(calculator.results["forces_deviation"].max())
    calibration = card.calibration
    assert calibration.coverage == 0.9
    assert calibration.file == "ethanol.extxyz"
    assert calibration.members == tuple(m.sha256 for m in card.members)
    assert sum(energies) == 10, "ceil(11 · 0.9) = 10 of 10"
    assert 0.85 <= np.mean(forces) <= 1.0
    np.testing.assert_allclose(calibration.largest_deviations, np.sort(deviations), rtol=1e-3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("folds = 4", "folds = 3", "3 members are too few for a calibration, which needs 4"),
        ("calibration = 10", "calibration = 8", "8 calibration frames are too few for a coverage of 0.9"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_before_training(tmp_path, old, new, message):
    config = write_run(tmp_path)
    config.write_text(config.read_text().replace(old, new))
    reports = []
    with pytest.raises(CalibrationError, match=message) as caught:
        crossval(load_config(config), tmp_path / "run", tmp_path / "models", workers=1, report=reports.append)
    assert "data.calibration = 0" in str(caught.value)
    assert not reports


def test_without_calibration_frames_there_is_no_calibration(tmp_path):
    config = write_run(tmp_path)
    few = {"folds = 4": "folds = 2", "calibration = 10": "calibration = 0", "steps = 60": "steps = 10"}
    for old, new in few.items():
        config.write_text(config.read_text().replace(old, new))
    card = crossval(load_config(config), tmp_path / "run", tmp_path / "models", workers=1)
    assert card.calibration is None
    assert card.metrics.calibration is None


def test_a_failing_fold_ends_the_run_with_its_reason(tmp_path):
    config = write_run(tmp_path)
    config.write_text(config.read_text().replace("learning_rate = 5e-3", 'learning_rate = 1e30\nschedule = "report"'))
    with pytest.raises(TrainingError, match="lower training.learning_rate"):
        crossval(load_config(config), tmp_path / "run", tmp_path / "models", workers=1)
    assert not (tmp_path / "models" / "ethanol-emt").exists()


def test_nothing_is_left_when_the_entry_cannot_be_written(finished, monkeypatch):
    folder, _, _ = finished
    from schnet_ase.training import crossval as module

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("schnet_ase.training.entry.write_card", full)
    with pytest.raises(OSError, match="No space left"):
        module(load_config(folder / "run.toml"), folder / "run", folder / "full", workers=1)
    assert list((folder / "full").iterdir()) == []


def test_what_a_killed_process_left_of_an_entry_is_replaced(finished):
    folder, card, _ = finished
    left = folder / "killed" / f".{card.name}.new"
    left.mkdir(parents=True)
    (left / "fold-9.safetensors").write_bytes(b"half of a")
    again = crossval(load_config(folder / "run.toml"), folder / "run", folder / "killed", workers=1)
    assert list((folder / "killed").iterdir()) == [again.path]
    assert sorted(f.name for f in again.path.iterdir()) == sorted(f.name for f in card.path.iterdir())


def test_structure_of_the_card_is_a_minimum(finished):
    """Of the members' mean energy: no force is left on any atom."""
    _, card, _ = finished
    atoms = card.structure.atoms()
    atoms.calc = SchNetEnsembleCalculator(card.path, dtype="float64")
    assert np.abs(atoms.get_forces()).max() < 1e-2


def test_relax_goes_downhill(finished):
    _, card, _ = finished
    models = [load_model(card.path / m.file) for m in card.members]
    start = labelled_ethanol(1)[0]
    calculator = SchNetEnsembleCalculator(card.path, dtype="float64")
    energies = []
    for atoms in (start.copy(), relax(models, start)):
        atoms.calc = calculator
        energies.append(atoms.get_potential_energy())
    assert energies[1] < energies[0]


def test_card_is_plain_json(finished):
    _, card, _ = finished
    table = json.loads((card.path / "card.json").read_text())
    assert "path" not in table
    assert table["metrics"]["test"]["n_frames"] == 8


def test_starting_from_an_earlier_run(finished, tmp_path):
    folder, card, _ = finished
    config = load_config(folder / "run.toml")
    still = replace(config, training=replace(config.training, learning_rate=1e-12, steps=10))
    again = crossval(still, tmp_path / "run", tmp_path / "models", initial=folder / "run", workers=1)
    for old, new in zip(card.members, again.members, strict=True):
        assert new.validation.force_mae == pytest.approx(old.validation.force_mae, rel=1e-4)
    # Weights that have seen its validation frames would make a fold's error a lie.
    with pytest.raises(
        TrainingError, match="was trained on [0-9]+ of the 8 frames that are for validation here; give a run"
    ):
        crossval(replace(config, seed=17), tmp_path / "other", tmp_path / "others", initial=folder / "run", workers=1)


def test_frames_that_the_start_was_selected_on_do_not_calibrate(finished, tmp_path, monkeypatch):
    folder, _, _ = finished

    def split(config, dataset):
        right = split_for_crossval(config, dataset)
        return right._replace(calibration=right.folds[0].validation)

    monkeypatch.setattr(sys.modules["schnet_ase.crossval.run"], "split_for_crossval", split)
    message = r"fold-1.*was validated on (\d) of the \1 frames that are for calibration here"
    with pytest.raises(TrainingError, match=message):
        crossval(
            load_config(folder / "run.toml"), tmp_path / "run", tmp_path / "models", initial=folder / "run", workers=1
        )


def test_nothing_is_left_of_a_run_that_was_killed(tmp_path):
    """Folds and all other processes end with it: they hold its output open for as long as they live."""
    path = write_run(tmp_path, TOML.replace("steps = 60", "steps = 1_000_000\ncompile = false"))
    command = [sys.executable, "-m", "schnet_ase", "crossval", str(path), "--output", str(tmp_path / "run")]
    command += ["--models", str(tmp_path / "models"), "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        while not all((tmp_path / "run" / f"fold-{k}" / "state.safetensors").exists() for k in (1, 2)):
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.1)
        process.kill()
        process.communicate(timeout=60)
