"""Partly labelled files: what is said of them, and what is left out on request."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from schnet_ase.data import StoredFrames, read_dataset, stored_dataset
from schnet_ase.data.labels.report import labelled_frames
from schnet_ase.errors import DataError
from schnet_ase.training import RunConfig, load_config
from schnet_ase.training.run import load_frames
from tests.support.frames import labelled_ethanol, write_run

LINE = (
    "ethanol.extxyz: of 12 frames 2 lack an energy, 2 lack forces; 1 has no label that is needed and counts for nothing"
)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A run on twelve frames: one without any label, one without energy, one without forces, one single atom."""
    toml = write_run(tmp_path)
    frames = labelled_ethanol(11)
    frames[2].calc = None
    del frames[5].calc.results["energy"]
    del frames[7].calc.results["forces"]
    single = Atoms("O", info={"energy": -1.5, "config_type": "IsolatedAtom"})
    write(tmp_path / "ethanol.extxyz", [*frames, single], format="extxyz")
    return load_config(toml)


def lines(config: RunConfig, caplog: pytest.LogCaptureFixture, **options: bool) -> list[str]:
    with caplog.at_level(logging.INFO, logger="schnet_ase"):
        load_frames(config.data.file, config, **options)
    return [record.getMessage() for record in caplog.records]


def test_what_frames_lack_is_said_once(config: RunConfig, caplog: pytest.LogCaptureFixture) -> None:
    said = lines(config, caplog)
    assert said[0].startswith("ethanol.extxyz: labels: energy from results['energy'] (eV, assumed), forces from ")
    assert said[1:] == [LINE]
    caplog.clear()
    assert lines(config, caplog, quiet=True) == []


@pytest.mark.parametrize("stream", [False, True])
def test_frames_that_lack_a_label_are_left_out(
    config: RunConfig, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    whole = load_frames(config.data.file, config)
    skip = dataclasses.replace(config, data=dataclasses.replace(config.data, skip_unlabelled=True, stream=stream))
    assert lines(skip, caplog)[-1] == f"{LINE}; frames that lack one are left out"
    dataset = load_frames(skip.data.file, skip)
    assert isinstance(dataset.frames, StoredFrames if stream else list)
    kept = [0, 1, 3, 4, 6, 8, 9, 10, 11]
    assert [f.energy for f in dataset.frames] == [whole.frames[i].energy for i in kept]
    assert dataset.frames[8].config_type == "IsolatedAtom"
    # Indices are others: no frame is taken for that of the whole file with its index.
    assert dataset.sha256 != whole.sha256
    assert whole.sha256 in dataset.parts


def test_pairs_of_stored_frames_go_with_their_frames(config: RunConfig) -> None:
    stored = stored_dataset(config.data.file, 5.0)
    part = labelled_frames(stored, energies=True, forces=True).frames
    assert isinstance(part, StoredFrames)
    for k, i in enumerate([0, 1, 3, 4, 6, 8, 9, 10, 11]):
        for a, b in zip(part.neighbors(k), stored.frames.neighbors(i), strict=True):
            np.testing.assert_array_equal(a, b)
    again = part.subset(np.array([2, 0]))
    assert [f.energy for f in again] == [part[2].energy, part[0].energy]


def test_nothing_to_leave_out_and_nothing_left(tmp_path: Path) -> None:
    write(tmp_path / "a.extxyz", labelled_ethanol(3), format="extxyz")
    dataset = read_dataset(tmp_path / "a.extxyz")
    assert labelled_frames(dataset, energies=True, forces=True) is dataset
    with pytest.raises(DataError, match=r"none of 3 frames has all labels; leave skip_unlabelled out"):
        labelled_frames(
            dataset._replace(frames=[f._replace(energy=None) for f in dataset.frames]), energies=True, forces=False
        )


def test_a_label_that_no_frame_has_lists_what_the_file_holds(tmp_path: Path, config: RunConfig) -> None:
    atoms = labelled_ethanol(3)
    for one in atoms:
        one.info["my"], one.arrays["own"] = one.get_potential_energy(), one.get_forces()
        one.calc = None
    write(config.data.file, atoms, format="extxyz")
    with pytest.raises(DataError, match=r"no frame has an energy; the file holds info\['my'\], arrays\['own'\]; name"):
        load_frames(config.data.file, config)
    named = dataclasses.replace(config.data, energy_key="my", forces_key="own")
    dataset = load_frames(config.data.file, dataclasses.replace(config, data=named))
    assert dataset.labels == "labels: energy from info['my'] (eV, assumed), forces from arrays['own'] (eV/Å, assumed)"
