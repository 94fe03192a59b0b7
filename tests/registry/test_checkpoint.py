"""Checkpoints: exact round trips, and a full disk that costs nothing."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

import pytest
import torch

from schnet_ase import SchNet, SchNetConfig, save_model
from schnet_ase.geometry.graph import Pairs
from schnet_ase.registry.checkpoint import load_checkpoint, read_provenance, read_tensors, write_tensors
from tests.support.checkpoints import CONFIG, PROVENANCE, TOTAL_ENERGY, assert_equal_models, make_model, split_header


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip_is_exact(tmp_path: Path, dtype: torch.dtype) -> None:
    model = make_model(dtype)
    path = tmp_path / "new folder" / "model.safetensors"
    save_model(model, path, **PROVENANCE)
    loaded = load_checkpoint(path)
    assert loaded.dtype == dtype
    assert not loaded.training
    assert_equal_models(loaded, model)
    assert read_provenance(path) == PROVENANCE
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_energies_are_the_same_to_the_last_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    model = make_model(dtype).eval()
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    numbers = torch.tensor([8, 1, 1])
    vectors = torch.tensor([[0.9, 0.1, 0.0], [-0.3, 0.8, 0.2], [-1.2, 0.7, 0.2]], dtype=torch.float64)
    pairs = Pairs(torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2]))
    expected = model(numbers, vectors, pairs)
    assert (expected != model.reference[numbers]).all(), "the network does not contribute"
    assert torch.equal(load_checkpoint(path)(numbers, vectors, pairs), expected)


def test_large_total_energies_lose_nothing(tmp_path: Path) -> None:
    model = make_model(torch.float32)
    model.scale.zero_()
    # Two references whose difference, 1e-9 eV, is seven orders below the spacing of float32 at -17,000 eV.
    model.reference[1] = TOTAL_ENERGY
    model.reference[6] = TOTAL_ENERGY + 1e-9
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    loaded = load_checkpoint(path)
    assert loaded.scale.dtype == loaded.reference.dtype == torch.float64
    none = torch.zeros(0, dtype=torch.int64)
    energies = loaded(torch.tensor([1, 6]), torch.zeros((0, 3), dtype=torch.float64), Pairs(none, none))
    assert energies[0].item() == TOTAL_ENERGY
    assert energies[1].item() == TOTAL_ENERGY + 1e-9
    assert energies[1].item() != energies[0].item()


def test_model_without_elements(tmp_path: Path) -> None:
    save_model(SchNet(CONFIG), tmp_path / "bare.safetensors")
    assert load_checkpoint(tmp_path / "bare.safetensors").elements is None


def test_header_says_units_and_elements(file: Path) -> None:
    header = json.loads(split_header(file.read_bytes())[0]["__metadata__"]["header"])
    assert header["units"] == {"energy": "eV", "length": "Å", "forces": "eV/Å"}
    assert header["elements"] == [1, 6, 8]
    assert SchNetConfig(**header["config"]) == CONFIG


@pytest.mark.parametrize("name", ["path", "model", "kind"])
def test_provenance_may_use_any_key(tmp_path: Path, name: str) -> None:
    save_model(make_model(), tmp_path / "m.safetensors", **{name: 1})
    assert read_provenance(tmp_path / "m.safetensors") == {name: 1}


def test_provenance_that_is_not_json_keeps_the_old_file(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(TypeError, match="JSON"):
        save_model(make_model(), file, folder=Path())
    assert file.read_bytes() == before


def test_training_state_round_trip(tmp_path: Path) -> None:
    tensors = {"step": torch.tensor(3), "moments": torch.rand(2, 3, dtype=torch.float64), "none": torch.zeros(0)}
    tensors["transposed"] = tensors["moments"].T
    write_tensors(tmp_path / "state", tensors, "training state", {"order": [2, 0, 1]})
    read, header = read_tensors(tmp_path / "state", "training state")
    assert header == {"order": [2, 0, 1]}
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in tensors.items())


def test_disk_found_full_keeps_the_earlier_checkpoint(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    other = make_model()
    other.scale.fill_(2.0)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        save_model(other, file)
    assert_equal_models(load_checkpoint(file), make_model())
    assert read_provenance(file) == PROVENANCE
    assert os.listdir(file.parent) == [file.name]


def test_full_disk_keeps_the_earlier_checkpoint(file: Path) -> None:
    resource = pytest.importorskip("resource")
    large, limits = SchNet(), resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            save_model(large, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert_equal_models(load_checkpoint(file), make_model())
    assert os.listdir(file.parent) == [file.name]
