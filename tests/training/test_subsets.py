"""Frames whose file says which subset they are in."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from schnet_ase.data import read_dataset, stored_dataset
from schnet_ase.errors import ConfigError, DataError
from schnet_ase.training import load_config
from schnet_ase.training.run import load_frames
from schnet_ase.training.subsets import load_test, split_for_crossval, split_for_training
from tests.support.frames import TOML, labelled_ethanol

SPLITS = ("fold-b", "fold-a", "test", "fold-a", "calibration", "fold-c", "calibration", "fold-b", "test", "fold-a")
STATED = TOML.replace('test = "test.extxyz"\ncalibration = 10', "stated_split = true").replace("folds = 4", "folds = 3")


@pytest.fixture
def config(tmp_path):
    frames = labelled_ethanol(len(SPLITS))
    for atoms, split in zip(frames, SPLITS, strict=True):
        atoms.info["split"] = split
    frames.insert(4, Atoms("H", info={"energy": -1.0}))  # an isolated atom needs no subset
    write(tmp_path / "ethanol.extxyz", frames)
    (tmp_path / "run.toml").write_text(STATED)
    return load_config(tmp_path / "run.toml")


def of(*splits):
    return [k + (k >= 4) for k, split in enumerate(SPLITS) if split in splits]


@pytest.mark.parametrize("stream", [False, True])
def test_each_fold_validates_on_the_frames_that_state_it(config, stream, tmp_path, monkeypatch):
    monkeypatch.setenv("SCHNET_ASE_CACHE", str(tmp_path / "cache"))
    config = replace(config, data=replace(config.data, stream=stream))
    dataset = load_frames(config.data.file, config)
    split = split_for_crossval(config, dataset)
    assert [fold.validation.tolist() for fold in split.folds] == [of("fold-a"), of("fold-b"), of("fold-c")]
    assert split.folds[1].training.tolist() == of("fold-a", "fold-c")
    assert split.calibration.tolist() == of("calibration")
    test = load_test(config, dataset)
    assert [frame.energy for frame in test.frames] == [dataset.frames[i].energy for i in of("test")]
    alone = split_for_training(config, dataset)
    assert (alone.validation.tolist(), alone.training.tolist()) == (of("fold-a"), of("fold-b", "fold-c"))


def test_numbers_draw_from_the_subsets(config):
    config = replace(config, data=replace(config.data, training=2, validation=1, calibration=1, test=1))
    dataset = load_frames(config.data.file, config)
    split = split_for_crossval(config, dataset)
    for name, fold in zip(("fold-a", "fold-b", "fold-c"), split.folds, strict=True):
        assert len(fold.training) == 2
        assert len(fold.validation) == 1
        assert set(fold.validation) <= set(of(name))
        assert set(fold.training).isdisjoint(of(name, "test", "calibration"))
    assert len(split.calibration) == 1
    assert split.calibration[0] in of("calibration")
    assert len(load_test(config, dataset).frames) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": 9}, r"data\.training = 9, but the file states 3 such frames"),
        ({"calibration": 3}, r"data\.calibration = 3, but the file states 2"),
    ],
)
def test_more_than_there_are_is_refused(config, changes, said):
    config = replace(config, data=replace(config.data, **changes))
    with pytest.raises(DataError, match=said):
        split_for_crossval(config, load_frames(config.data.file, config))


def test_another_number_of_folds_is_refused(config):
    with pytest.raises(DataError, match="state 3 folds beside test and calibration; expected folds = 5"):
        split_for_crossval(replace(config, folds=5), load_frames(config.data.file, config))


@pytest.mark.parametrize(
    ("splits", "said"),
    [(("fold-1", None), "frame 1 has no split"), (("fold-1", "test"), "state fold-1 beside"), (("test",), "no fold")],
)
def test_files_that_do_not_say_enough_are_refused(config, tmp_path, splits, said):
    frames = labelled_ethanol(len(splits))
    for atoms, split in zip(frames, splits, strict=True):
        atoms.info.update({} if split is None else {"split": split})
    write(tmp_path / "ethanol.extxyz", frames)
    with pytest.raises(DataError, match=said):
        split_for_training(config, load_frames(config.data.file, config))


def test_one_way_to_split(tmp_path, config):
    (tmp_path / "run.toml").write_text(STATED.replace("stated_split", "by_molecule = true\nstated_split"))
    with pytest.raises(ConfigError, match="stated_split and by_molecule are both true"):
        load_config(tmp_path / "run.toml")


def test_npz_states_subsets_too(tmp_path):
    file = tmp_path / "two.npz"
    positions = np.array([[[0.0, 0, 0], [0, 0, 0.74]], [[0.0, 0, 0], [0, 0, 0.8]]])
    np.savez(file, z=[1, 1], R=positions, E=[0.0, 1.0], F=np.zeros_like(positions), split=["fold-1", "test"])
    assert [f.split for f in read_dataset(file).frames] == ["fold-1", "test"]
    assert [f.split for f in stored_dataset(file, 5.0, cache=tmp_path / "cache").frames] == ["fold-1", "test"]
