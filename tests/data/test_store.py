"""Frames on disk: the same numbers as in memory, made once, whole or not at all, and memory that does not grow."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import ase.db
import numpy as np
import pytest
import torch
from _systems import molecules
from ase import Atoms
from ase.io import write

from schnet_ase import load_model
from schnet_ase.data import LabelOptions, StoredFrames, read_dataset, store, stored_dataset
from schnet_ase.data.batches import make_examples
from schnet_ase.data.lazy import Lazy
from schnet_ase.data.store import write_store
from schnet_ase.errors import DataError, StructureError
from schnet_ase.geometry.neighbors import half_neighbor_list
from schnet_ase.training import crossval, load_config, run, train_from_config
from tests.support.frames import labelled_ethanol, write_ethanol, write_run
from tests.support.paths import ROOT

CUTOFF = 4.0


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(store.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def equal_tensors(a, b):
    """Of two batches, shifts that are None included."""
    for x, y in zip(a, b, strict=True):
        if isinstance(x, tuple):
            equal_tensors(x, y)
        elif x is None or y is None:
            assert x is y
        else:
            assert x.dtype == y.dtype
            torch.testing.assert_close(x, y, rtol=0.0, atol=0.0, equal_nan=True)  # NaN: no stress


@pytest.fixture
def mixed(tmp_path, crystal):
    """A file of molecules of several sizes, a crystal, one atom, and labels that are not everywhere."""
    frames = labelled_ethanol(2)
    bare = Atoms("OH", positions=[[0, 0, 0], [0, 0, 1.0]])
    bare.info["energy"] = -3.0
    crystal.info["energy"] = 1.0
    crystal.new_array("forces", np.random.default_rng(0).normal(size=(4, 3)))
    lonely = Atoms("C")
    file = tmp_path / "mixed.extxyz"
    write(file, [frames[0], crystal, bare, lonely, frames[1]], format="extxyz")
    return file


def test_frames_are_those_of_the_file(mixed):
    read, stored = read_dataset(mixed), stored_dataset(mixed, CUTOFF)
    assert stored[1:] == read[1:]
    assert stored.elements == read.elements == (1, 6, 7, 8)
    assert len(stored.frames) == len(read.frames) == 5
    for a, b in zip(stored.frames, read.frames, strict=True):
        assert same(a.geometry, b.geometry)
        assert a.energy == b.energy
        assert (a.forces is None) == (b.forces is None)
        assert a.forces is None or np.array_equal(a.forces, b.forces)
    assert [f.forces is None for f in stored.frames] == [False, False, True, True, False]
    assert stored.frames[3].energy is None


def test_pairs_are_those_of_the_frames(mixed):
    stored = stored_dataset(mixed, CUTOFF).frames
    for i, frame in enumerate(stored):
        _, positions, cell, pbc = frame.geometry
        assert same(stored.neighbors(i), half_neighbor_list(positions, cell, pbc, CUTOFF))
    assert stored.neighbors(1).shifts.any(), "the crystal's pairs cross its borders"


@pytest.mark.parametrize("cutoff", [CUTOFF, CUTOFF + 1.0])
def test_examples_are_those_in_memory(mixed, cutoff):
    """Also where a store of another cutoff is given: its pairs are then not used."""
    indices = [4, 1, 0, 2]
    stored = make_examples(stored_dataset(mixed, CUTOFF).frames, indices, cutoff)
    in_memory = make_examples(read_dataset(mixed).frames, indices, cutoff)
    for a, b in zip(stored, in_memory, strict=True):
        equal_tensors(a, b)


def test_many_frames_of_an_ase_database(tmp_path, monkeypatch):
    """More than are asked for at once, and ids that were deleted."""
    monkeypatch.setattr("schnet_ase.data.readers.ase_files.FRAMES_AT_ONCE", 7)
    monkeypatch.setattr(store, "_CHUNK", 4)
    with ase.db.connect(tmp_path / "a.db") as database:
        for atoms in labelled_ethanol(23):
            database.write(atoms)
        database.delete([3, 8, 9])
    frames = stored_dataset(tmp_path / "a.db", None).frames
    expected = [a.get_potential_energy() for i, a in enumerate(labelled_ethanol(23)) if i + 1 not in (3, 8, 9)]
    assert [f.energy for f in frames] == pytest.approx(expected)


def test_a_store_is_made_once(tmp_path, cache, monkeypatch):
    file = write_ethanol(tmp_path / "a.extxyz", 3)
    made = []
    real = store.write_store
    monkeypatch.setattr(store, "write_store", lambda *arguments: made.append(None) or real(*arguments))
    for cutoff, n_made in ((5.0, 1), (5.0, 1), (6.0, 2), (None, 3), (None, 3)):
        assert len(stored_dataset(file, cutoff).frames) == 3
        assert len(made) == n_made
    stored_dataset(file, 5.0, LabelOptions(energy_unit="kcal/mol"))
    assert len(made) == 4
    write_ethanol(file, 4)
    assert len(stored_dataset(file, 5.0).frames) == 4
    assert len(made) == 5


def test_a_store_that_was_cut_off_is_made_again(tmp_path, cache):
    file = write_ethanol(tmp_path / "a.extxyz", 3)
    stored_dataset(file, 5.0)
    (finished,) = (f for f in cache.iterdir() if f.is_dir())
    left = finished.with_suffix(".part")
    finished.rename(left)  # as a process that was killed leaves it
    (left / "positions").write_bytes(b"")
    assert len(stored_dataset(file, 5.0).frames[0].geometry.positions) == 9
    assert not left.exists()


def test_nothing_is_left_of_a_store_that_cannot_be_made(tmp_path, cache, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("schnet_ase.data.store.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        stored_dataset(write_ethanol(tmp_path / "a.extxyz", 3), 5.0)
    assert [f.suffix for f in cache.iterdir()] in ([".lock"], [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: f._replace(forces=np.zeros((2, 3))),
            r"data: frame 2 has forces of shape \(2, 3\); expected \(\d+, 3\)",
        ),
        (lambda f: f._replace(geometry=f.geometry._replace(numbers=np.array([], int))), "data: frame 2 has no atoms"),
        (
            lambda f: f._replace(geometry=f.geometry._replace(positions=f.geometry.positions * np.nan)),
            "data: frame 2 has NaN or infinite positions",
        ),
    ],
    ids=["forces", "atoms", "positions"],
)
def test_frames_that_cannot_be_stored(tmp_path, change, message):
    frames = list(molecules(4))
    frames[2] = change(frames[2])
    with pytest.raises(DataError, match=message):
        write_store(frames, "data", tmp_path / "store", CUTOFF)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_missing_or_periodic_without_a_cutoff(tmp_path, mixed):
    with pytest.raises(DataError, match="no such file"):
        stored_dataset(tmp_path / "none.extxyz", CUTOFF)
    with pytest.raises(StructureError, match="without an envelope"):
        stored_dataset(mixed, None)


def test_a_file_without_frames(tmp_path, cache):
    (tmp_path / "empty.extxyz").write_text("")
    with pytest.raises(DataError, match=r"empty\.extxyz"):
        stored_dataset(tmp_path / "empty.extxyz", CUTOFF)


def test_lazy():
    asked = []
    items = Lazy(lambda i: asked.append(i) or i**2, 6)
    part = items[1:5]
    assert not asked
    assert len(part) == 4
    assert list(part) == [1, 4, 9, 16]
    assert items[-1] == 25
    assert list(items[::-2]) == [25, 9, 1]
    with pytest.raises(IndexError):
        part[4]


def write_molecules(folder: Path, n_frames: int) -> Path:
    """A run on molecules of several sizes, energies alone."""
    atoms = []
    for frame in molecules(n_frames):
        atoms.append(frame.atoms())
        atoms[-1].info["energy"] = frame.energy
    write(folder / "molecules.extxyz", atoms, format="extxyz")
    config = write_run(folder)
    toml = config.read_text().replace("ethanol.extxyz", "molecules.extxyz").replace('test = "test.extxyz"', "")
    config.write_text(toml.replace("[training]", "[training]\nenergy_weight = 1.0\nforce_weight = 0.0"))
    return config


@pytest.mark.parametrize("kind", ["ethanol", "molecules"])
def test_training_gives_the_numbers_of_one_in_memory(tmp_path, kind):
    config = load_config(write_run(tmp_path) if kind == "ethanol" else write_molecules(tmp_path, 30))
    results = []
    for stream in (False, True):
        streamed = dataclasses.replace(config, data=dataclasses.replace(config.data, stream=stream))
        assert isinstance(run.load_frames(config.data.file, streamed).frames, StoredFrames if stream else list)
        results.append(train_from_config(streamed, tmp_path / f"run-{stream}"))
    a, b = ([row._replace(seconds=0.0) for row in result.history] for result in results)
    assert a == b
    a, b = (load_model(result.path).state_dict() for result in results)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert results[0].history[-1].training_loss < results[0].history[0].training_loss


def test_large_files_are_streamed_unasked(tmp_path, monkeypatch):
    config = load_config(write_run(tmp_path))
    size = Path(config.data.file).stat().st_size
    for limit, kind in ((size, list), (size - 1, StoredFrames)):
        monkeypatch.setattr(run, "STREAM_ABOVE", limit)
        assert isinstance(run.load_frames(config.data.file, config).frames, kind)
    with pytest.raises(DataError, match="no such file"):
        run.load_frames(str(tmp_path / "none.extxyz"), config)


def test_crossval_from_a_store(tmp_path):
    """The entry and its errors are those from memory."""
    config = write_run(tmp_path)
    for old, new in {
        "folds = 4": "folds = 2",
        "calibration = 10": "calibration = 0",
        "steps = 60": "steps = 10",
    }.items():
        config.write_text(config.read_text().replace(old, new))
    cards = []
    for stream in (False, True):
        loaded = load_config(config)
        loaded = dataclasses.replace(loaded, data=dataclasses.replace(loaded.data, stream=stream))
        cards.append(crossval(loaded, tmp_path / f"run-{stream}", tmp_path / f"models-{stream}", workers=1))
    assert cards[0].metrics == cards[1].metrics
    assert [m.validation for m in cards[0].members] == [m.validation for m in cards[1].members]
    assert cards[0].data == cards[1].data


MEASURE = """
import sys
from pathlib import Path
from schnet_ase.data import LabelOptions, Dataset, StoredFrames, split_training
from schnet_ase.training import load_config, train
from _systems import molecules

folder, n_frames, what = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
config = load_config(folder / "run.toml")
name = f"{n_frames}.extxyz"
most = 0

def report(step, row):
    # RssAnon is memory of the process itself: what is mapped from files the system can drop.
    global most
    lines = Path("/proc/self/status").read_text().splitlines()
    most = max(most, next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")))

stored = what == "stored"
frames = StoredFrames(folder / name, config.model.pair_cutoff) if stored else list(molecules(n_frames))
dataset = Dataset(frames, name, "0", "eV")
train(config, dataset, split_training(n_frames, 100, 0), folder / f"run-{what}-{n_frames}", report=report)
print(most)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory of a process is read from /proc")
def test_memory_does_not_grow_with_the_number_of_frames(tmp_path):
    config = write_molecules(tmp_path, 30)
    config.write_text(config.read_text().replace("steps = 60", "steps = 10"))
    cutoff = load_config(config).model.pair_cutoff

    def peak(n_frames, what):
        """Return the kB of a process that does nothing else."""
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(tmp_path), str(n_frames), what],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": "benchmarks"},
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout.splitlines()[-1])

    for n_frames in (1000, 9000):
        write_store(molecules(n_frames), f"{n_frames}.extxyz", tmp_path / f"{n_frames}.extxyz", cutoff)
    small, large, in_memory = peak(1000, "stored"), peak(9000, "stored"), peak(9000, "memory")
    stored, held = (1024 * (kb - small) / 8000 for kb in (large, in_memory))
    print(f"per frame: {stored:.0f} bytes stored, {held:.0f} in memory")
    assert held > 3000, "a frame's arrays and pairs, in memory: what the test would see"
    assert stored < held / 4, "indices and the like of a frame alone; the allocator keeps some megabytes of its own"
