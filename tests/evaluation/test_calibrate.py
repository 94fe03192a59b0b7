"""Calibration of an entry: only on frames that its members have not seen, and nothing else of the card is changed."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from schnet_ase import SchNetEnsembleCalculator, save_model
from schnet_ase.data import read_dataset
from schnet_ase.errors import CalibrationError, DataError, RegistryError
from schnet_ase.evaluation.calibrate import calibrate_driver
from schnet_ase.evaluation.evaluate import evaluate_dataset
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import read_card, write_card
from schnet_ase.registry.checkpoint import load_checkpoint, read_provenance
from schnet_ase.registry.provenance import Identity, Origin, Provenance
from schnet_ase.training import calibrate_entry, crossval, load_config, unseen_frames
from tests.support.frames import TOML, write_ethanol, write_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of four folds and its entry, made without calibration."""
    folder = tmp_path_factory.mktemp("calibrate")
    toml = TOML.replace("calibration = 10", "calibration = 0")
    crossval(load_config(write_run(folder, toml)), folder / "run", folder / "models", workers=1)
    write_ethanol(folder / "new.extxyz", 30, seed=7)
    return folder


@pytest.fixture
def card(trained, tmp_path):
    """Of a copy of the entry."""
    shutil.copytree(trained / "models" / "ethanol-emt", tmp_path / "ethanol-emt")
    return read_card(tmp_path / "ethanol-emt")


@pytest.fixture
def new(trained):
    return read_dataset(trained / "new.extxyz")


@pytest.fixture
def old(trained):
    return read_dataset(trained / "ethanol.extxyz")


def one_line(caught):
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_calibration_goes_into_the_card_and_nothing_else_changes(card, new):
    assert card.calibration is None
    after = calibrate_entry(card, new, range(30))
    assert after == read_card(card.path)
    assert dataclasses.replace(after, calibration=None) == card
    assert after.calibration.n_frames == after.calibration.energy.n_frames == 30
    assert after.calibration.file == "new.extxyz"
    assert after.calibration.sha256 == new.sha256
    assert list(card.path.glob(".*")) == []


def test_half_widths_hold_the_errors_of_who_moves_the_atoms(card, new):
    """A member stands in for a student: its errors against the members' spread, and the threshold of the spread."""
    entry = calibrate_entry(card, new, range(30))
    before = (card.path / "card.json").read_bytes()
    frames, driver = range(30), load_checkpoint(card.path / card.members[0].file)
    found = calibrate_driver(card, new, frames, driver)
    assert (card.path / "card.json").read_bytes() == before
    assert found.threshold() == entry.calibration.threshold()
    assert (found.members, found.sha256) == (entry.calibration.members, entry.calibration.sha256)
    models = [load_checkpoint(card.path / member.file) for member in card.members]
    spread, alone = evaluate_dataset(models, new), evaluate_dataset([driver], new).member(0)
    errors = spread.ensemble_errors(alone)
    np.testing.assert_allclose(errors.deviation, spread.ensemble_errors().deviation)
    np.testing.assert_allclose(errors.force_errors, alone.forces - alone.reference_forces)
    np.testing.assert_allclose(errors.energy_error, alone.energy - alone.reference_energy)
    half_widths = found.forces_half_width(errors.deviation, errors.numbers, 0.9)
    assert 0.85 < np.mean(errors.force_error <= half_widths) < 0.97
    # Not those of the mean, whose own calibration holds them.
    assert found.forces.scores != entry.calibration.forces.scores
    with pytest.raises(CalibrationError, match="too few"):
        calibrate_driver(card, new, range(5), driver)


def test_calibrating_again_replaces(card, new):
    first = calibrate_entry(card, new, range(30))
    second = calibrate_entry(first, new, range(20), coverage=0.8)
    assert second.calibration.n_frames == 20
    assert second.calibration.coverage == 0.8
    assert calibrate_entry(second, new, range(30)) == first


@pytest.mark.parametrize("label", ["energy", "forces"])
def test_frames_of_something_else_do_not_replace_a_calibration(card, new, label):
    """Labels in another unit, as those of another molecule or method would be."""
    card = calibrate_entry(card, new, range(30))
    before = (card.path / "card.json").read_bytes()
    change = {"energy": lambda f: f.energy + 1e3, "forces": lambda f: 1e3 * f.forces}[label]
    other = new._replace(frames=[f._replace(**{label: change(f)}) for f in new.frames])
    with pytest.raises(CalibrationError, match=f"{label.removesuffix('s')} MAE of .* on these frames") as caught:
        calibrate_entry(card, other, range(30))
    one_line(caught)
    assert (card.path / "card.json").read_bytes() == before


def test_one_frame_twice_does_not_count_for_two(card, new):
    copies = new._replace(frames=[*new.frames[:20], new.frames[3]])
    with pytest.raises(CalibrationError, match=r"new\.extxyz: frame 20 repeats frame 3") as caught:
        calibrate_entry(card, copies, range(21))
    one_line(caught)
    assert calibrate_entry(card, copies, range(20)).calibration.n_frames == 20


def test_coverage_is_that_of_the_calculator(card, new):
    """The half-widths in the calculator's results hold as many of the calibration frames as they are made to."""
    calibrate_entry(card, new, range(30), coverage=0.8)
    calculator = SchNetEnsembleCalculator(card.path, dtype="float64")
    held = []
    for frame in new.frames:
        energy = calculator.get_potential_energy(frame.atoms())
        held.append(abs(energy - frame.energy) <= calculator.results["energy_uncertainty"] * (1 + 1e-4))
    assert sum(held) == 25, "ceil(31 · 0.8)"


def test_frames_that_no_member_saw(card, old, new, trained):
    with pytest.raises(CalibrationError, match="trained or validated on each of the 40 frames") as caught:
        unseen_frames(card, old)
    one_line(caught)
    assert unseen_frames(card, new) == list(range(30))


def test_one_of_several_files_counts_as_seen(tmp_path):
    for name, seed in ("a", 5), ("b", 6), ("c", 7):
        write_ethanol(tmp_path / f"part-{name}.extxyz", 20, seed=seed)
    config = load_config(write_run(tmp_path, TOML.replace("ethanol.extxyz", "part-[ab].extxyz")))
    card = crossval(config, tmp_path / "run", tmp_path / "models", workers=1)
    assert unseen_frames(card, read_dataset(tmp_path / "part-c.extxyz")) == list(range(20))
    for name in "part-a.extxyz", "part-[bc].extxyz":
        with pytest.raises(CalibrationError, match="or on a file among them"):
            unseen_frames(card, read_dataset(tmp_path / name))


def test_files_behind_the_weights_of_a_start_go_on_from_run_to_run():
    first = Provenance(Identity(data_sha256="a", extra_sha256="c"), Origin(data_parts=("b",)))
    second = Provenance(Identity(data_sha256="d"), Origin(initial_data=tuple(sorted(first.all_hashes))))
    assert second.all_hashes == set("abcd")
    assert Provenance().all_hashes == set()


def test_frames_kept_for_calibration_are_unseen(tmp_path):
    card = crossval(load_config(write_run(tmp_path)), tmp_path / "run", tmp_path / "models", workers=1)
    kept = read_provenance(card.path / card.members[0].file)["calibration_frames"]
    dataset = read_dataset(tmp_path / "ethanol.extxyz")
    assert unseen_frames(card, dataset) == kept
    assert calibrate_entry(card, dataset, kept).calibration == card.calibration
    seen = next(i for i in range(40) if i not in kept)
    with pytest.raises(CalibrationError, match=f"1 of the 11 frames, the first is {seen}; leave them out") as caught:
        calibrate_entry(card, dataset, [*kept, seen])
    one_line(caught)


def test_one_member_is_enough_to_have_seen_a_frame(card, new):
    """A fold that was trained on frame 3 of the new file, and another that was validated on frame 5."""
    for file, training, validation in (("fold-2.safetensors", [3], []), ("fold-4.safetensors", [], [5])):
        provenance = read_provenance(card.path / file)
        provenance |= {"data_sha256": new.sha256, "training_frames": training, "validation_frames": validation}
        save_model(load_checkpoint(card.path / file), card.path / file, **provenance)
    members = tuple(dataclasses.replace(m, sha256=sha256(card.path / m.file)) for m in card.members)
    card = dataclasses.replace(card, members=members)
    write_card(card, card.path)
    assert unseen_frames(card, new) == [i for i in range(30) if i not in (3, 5)]


def test_member_without_record_of_its_frames(card, new):
    file = card.path / card.members[1].file
    save_model(load_checkpoint(file), file, made_by="hand")
    with pytest.raises(CalibrationError, match=r"fold-2\.safetensors: does not say which frames") as caught:
        unseen_frames(card, new)
    one_line(caught)


def test_too_few_members(card, new):
    for few in (card.members[:3], card.members[:2]):
        with pytest.raises(CalibrationError, match=f"{len(few)} members are too few"):
            calibrate_entry(dataclasses.replace(card, members=few), new, range(30))
    assert read_card(card.path).calibration is None


@pytest.mark.parametrize(("n", "coverage", "needed"), [(8, 0.9, 9), (18, 0.95, 19), (0, 0.5, 2)])
def test_too_few_frames(card, new, n, coverage, needed):
    with pytest.raises(CalibrationError, match=f"{n} calibration frames.*{needed}"):
        calibrate_entry(card, new, range(n), coverage=coverage)
    assert read_card(card.path).calibration is None


def test_labels_that_are_not_to_be_trusted(card, new):
    frames = [f._replace(forces=np.full((9, 3), np.nan)) for f in new.frames]
    with pytest.raises(DataError, match="NaN"):
        calibrate_entry(card, new._replace(frames=frames), range(30))


@pytest.mark.parametrize("label", ["energy", "forces"])
def test_one_kind_of_label(card, new, label):
    frames = [f._replace(**{label: None}) for f in new.frames]
    calibration = calibrate_entry(card, new._replace(frames=frames), range(30)).calibration
    assert getattr(calibration, label) is None
    atoms = new.frames[0].atoms()
    atoms.calc = SchNetEnsembleCalculator(card.path)
    atoms.get_forces()
    assert (f"{label}_uncertainty" in atoms.calc.results) is False
    other = "forces" if label == "energy" else "energy"
    assert f"{other}_uncertainty" in atoms.calc.results


def test_old_card_stays_when_the_new_one_cannot_be_written(card, new, monkeypatch):
    before = (card.path / "card.json").read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("schnet_ase.output.files.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        calibrate_entry(card, new, range(30))
    assert (card.path / "card.json").read_bytes() == before
    assert list(card.path.glob(".*")) == []


# --- what a card says is checked ----------------------------------------------------------------------------------


def edit(card, change):
    file = card.path / "card.json"
    table = json.loads(file.read_text())
    change(table)
    file.write_text(json.dumps(table))


def swap_first_scores(table):
    scores = table["calibration"]["energy"]["scores"]
    scores[0], scores[-1] = scores[-1], scores[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["calibration"].update(coverage=1.5), "calibration.coverage"),
        (lambda t: t["calibration"].update(coverage=0.99), "too few for a coverage of 0.99"),
        (lambda t: t["calibration"].pop("largest_deviations"), "calibration.largest_deviations"),
        (swap_first_scores, "ascending"),
        (lambda t: t["calibration"]["forces"].update(prior_weight=2), "calibration.forces.prior_weight"),
        (lambda t: t["calibration"]["forces"].update(alpha="one"), "calibration.forces.alpha"),
        (lambda t: t.update(members=t["members"][::-1]), "calibration is that of other members"),
        (lambda t: t["members"].pop(), "calibration is that of other members"),
    ],
    ids=range(8),
)
def test_card_with_a_calibration_that_is_none(card, new, change, message):
    calibrate_entry(card, new, range(30))
    edit(card, change)
    with pytest.raises(RegistryError, match="not a valid card") as caught:
        read_card(card.path)
    assert message in one_line(caught)


def test_card_of_before_there_were_calibrations(card):
    edit(card, lambda table: table.pop("calibration"))
    assert read_card(card.path) == card
