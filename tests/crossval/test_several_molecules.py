"""Cross-validation of several molecules, and starts from it."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from ase.io import write

from schnet_ase.data import TrainingSplit, held_out, read_dataset
from schnet_ase.data.batches import collate
from schnet_ase.errors import CalibrationError, DataError, RegistryError, TrainingError
from schnet_ase.output.files import sha256
from schnet_ase.registry.checkpoint import read_provenance
from schnet_ase.training import crossval, load_config, unseen_frames
from schnet_ase.training.run import load_frames
from schnet_ase.training.single import train
from schnet_ase.training.subsets import load_test, split_for_crossval
from tests.support.frames import TOML, labelled_ethanol

ETHANOL = TOML.replace("ethanol.extxyz", "train_ethanol.extxyz").replace("test.extxyz", "test_ethanol.extxyz")
BOTH = (
    ETHANOL.replace("_ethanol.extxyz", "_*.extxyz")
    .replace("ethanol-emt", "both")
    .replace("calibration", "by_molecule = true\ncalibration")
)


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A folder of two molecules' frames, and a run on both that split them by molecule."""
    folder = tmp_path_factory.mktemp("several")
    for name, formula, seed in (("ethanol", "CH3CH2OH", 0), ("methanol", "CH3OH", 1)):
        write(folder / f"train_{name}.extxyz", labelled_ethanol(40, seed, name=formula))
        write(folder / f"test_{name}.extxyz", labelled_ethanol(8, seed + 5, name=formula))
    (folder / "both.toml").write_text(BOTH)
    (folder / "ethanol.toml").write_text(ETHANOL)
    card = crossval(load_config(folder / "both.toml"), folder / "run", folder / "models", workers=1)
    return folder, card


def test_molecules_are_split_as_if_each_were_alone(several):
    folder, card = several
    assert card.data.initial is None
    config = load_config(folder / "ethanol.toml")
    alone = split_for_crossval(config, load_frames(config.data.file, config))
    assert "4 random, molecule by molecule, folds over 60 frames, 20 kept for calibration" in card.data.split
    for member, fold in zip(card.members, alone.folds, strict=True):
        provenance = read_provenance(card.path / member.file)
        for key, frames in (
            ("training_frames", fold.training),
            ("validation_frames", fold.validation),
            ("calibration_frames", alone.calibration),
        ):
            of_ethanol, of_methanol = (
                [i - first for i in provenance[key] if first <= i < first + 40] for first in (0, 40)
            )
            assert of_ethanol == of_methanol == frames.tolist()


@pytest.mark.parametrize("by_molecule", [True, False])
def test_every_batch_has_each_molecule_in_its_share(several, tmp_path, monkeypatch, by_molecule):
    folder, _ = several
    config = load_config(folder / "both.toml")
    config = replace(config, data=replace(config.data, by_molecule=by_molecule))
    config = replace(config, training=replace(config.training, steps=12, batch_size=4, warmup=0, validate_every=12))
    shares = []

    def watched(examples):
        shares.append(sum(len(example.graph.numbers) == 9 for example in examples))
        return collate(examples)

    monkeypatch.setattr("schnet_ase.training.trainer.collate", watched)
    dataset = load_frames(config.data.file, config)
    train(config, dataset, split_for_crossval(config, dataset).folds[0], tmp_path)
    assert (shares == [2] * 12) == by_molecule


def test_molecules_count_by_their_weights(several, tmp_path):
    """In training and in validation; a formula of which there is no frame is a mistake."""
    folder, _ = several
    config = load_config(folder / "both.toml")
    still = replace(config.training, steps=1, batch_size=60, learning_rate=1e-12, ema=0.0, loss="absolute")
    dataset = load_frames(config.data.file, config)
    everything = split_for_crossval(config, dataset).folds[0].training
    split = TrainingSplit(everything, everything)
    losses = []
    for weights in ({}, {"C2H6O": 3.0}, {"CH4O": 3.0}):
        weighted = replace(config, training=replace(still, frame_weights=weights))
        row = train(weighted, dataset, split, tmp_path / "-".join(["run", *weights])).history[-1]
        assert row.validation_loss == pytest.approx(row.training_loss, rel=1e-5)
        losses.append(row.validation_loss)
    plain, *heavier = losses
    assert sum(loss - plain for loss in heavier) == pytest.approx(2.0 * plain, rel=1e-5)
    wrong = replace(config, training=replace(still, frame_weights={"C2H5OH": 3.0}))
    with pytest.raises(DataError, match="frame_weights names C2H5OH, of which there is no frame"):
        load_frames(config.data.file, wrong)


def test_tests_of_each_molecule(several):
    folder, _ = several
    config = load_config(folder / "both.toml")
    config = replace(config, data=replace(config.data, test=7))
    dataset = load_frames(config.data.file, config)
    positions = [f.geometry.positions for f in load_test(config, dataset).frames]
    kept = held_out(40, 7, config.seed)
    expected = [dataset.frames[i].geometry.positions for i in (*kept, *(40 + kept))]
    assert all(np.array_equal(a, b) for a, b in zip(positions, expected, strict=True))


def check_seen_by_the_start(card, folder):
    """Of its own file an entry has seen its own frames, and all of what else the weights were trained on."""
    kept = read_provenance(card.path / card.members[0].file)["calibration_frames"]
    assert unseen_frames(card, read_dataset(folder / "train_ethanol.extxyz")) == kept
    for name in "train_methanol.extxyz", "train_*.extxyz":
        with pytest.raises(CalibrationError, match="or on a file among them"):
            unseen_frames(card, read_dataset(folder / name))
    assert len(unseen_frames(card, read_dataset(folder / "test_methanol.extxyz"))) == 8


def test_starting_from_a_run_on_more_molecules(several, tmp_path):
    folder, _ = several
    config = load_config(folder / "ethanol.toml")
    card = crossval(config, tmp_path / "run", tmp_path / "models", initial=folder / "run", workers=1)
    assert card.data.initial == "train_*.extxyz"
    check_seen_by_the_start(card, folder)
    for k, member in enumerate(card.members):
        start = read_provenance(folder / "run" / f"fold-{k + 1}" / "best.safetensors")
        assert {*start["training_frames"]}.isdisjoint({*read_provenance(card.path / member.file)["validation_frames"]})
        weights = folder / "run" / f"fold-{k + 1}" / "best.safetensors"
        assert read_provenance(tmp_path / "run" / f"fold-{k + 1}" / "best.safetensors")["initial_sha256"] == sha256(
            weights
        )


def test_starting_from_an_entry_by_its_name(several, tmp_path, monkeypatch):
    folder, both = several
    monkeypatch.setenv("SCHNET_ASE_MODELS", str(folder / "models"))
    config = load_config(folder / "ethanol.toml")
    card = crossval(config, tmp_path / "run", tmp_path / "models", initial="both", workers=1)
    check_seen_by_the_start(card, folder)
    for k, member in enumerate(both.members):
        provenance = read_provenance(tmp_path / "run" / f"fold-{k + 1}" / "best.safetensors")
        assert provenance["initial_sha256"] == member.sha256
    with pytest.raises(TrainingError, match="both: has 4 members for 5 folds to start from"):
        crossval(replace(config, folds=5), tmp_path / "five", tmp_path / "others", initial="both", workers=1)
    with pytest.raises(RegistryError, match="'bothe'.*did you mean both"):
        crossval(config, tmp_path / "none", tmp_path / "others", initial="bothe", workers=1)


@pytest.mark.parametrize("k", [0, 3])
def test_frames_that_the_start_has_seen_are_not_validated_on(several, tmp_path, k):
    folder, _ = several
    config = load_config(folder / "ethanol.toml")
    swapped = tmp_path / "swapped"
    shutil.copytree(folder / "run", swapped)
    other = folder / "run" / f"fold-{(k + 1) % 4 + 1}" / "best.safetensors"
    shutil.copy(other, swapped / f"fold-{k + 1}" / "best.safetensors")
    with pytest.raises(TrainingError, match=rf"fold-{k + 1}.*was trained on (7|8) of the (7|8) frames .* validation"):
        crossval(config, tmp_path / "run", tmp_path / "models", initial=swapped, workers=1)
    with pytest.raises(TrainingError, match=r"frames that are for (validation|calibration) here"):
        crossval(replace(config, seed=8), tmp_path / "run", tmp_path / "models", initial=folder / "run", workers=1)
    assert not (tmp_path / "models").exists()


def test_data_of_the_start_that_are_gone_or_changed(several, tmp_path):
    folder, _ = several
    moved = shutil.copytree(folder, tmp_path / "moved", ignore=shutil.ignore_patterns("*methanol*"))
    config = load_config(moved / "ethanol.toml")
    message = r"was trained on frames of {}; which of them is known only with train_\*\.extxyz in the same folder"
    with pytest.raises(TrainingError, match=message.format("train_ethanol.extxyz")):
        crossval(config, tmp_path / "run", tmp_path / "models", initial=folder / "run", workers=1)
    (tmp_path / "alone").mkdir()
    file = tmp_path / "alone" / "mine.extxyz"
    shutil.copy(folder / "train_ethanol.extxyz", file)
    config = replace(config, data=replace(config.data, file=str(file)))
    with pytest.raises(TrainingError, match=message.format("mine.extxyz")):
        crossval(config, tmp_path / "run", tmp_path / "models", initial=folder / "run", workers=1)
