"""Checkpoints: exact round trips, and every damaged or foreign file refused by name and without running its code."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import units
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from schnet_ase import SchNet, SchNetConfig, load_model, save_model
from schnet_ase.errors import CheckpointError
from schnet_ase.geometry.graph import Pairs
from schnet_ase.registry.checkpoint import load_checkpoint, read_provenance, read_tensors, write_tensors

CONFIG = SchNetConfig(n_features=4, n_interactions=2, n_rbf=6, cutoff=4.0, gamma=None, envelope="cosine", norm="rms")
TOTAL_ENERGY = -4e5 * units.kcal / units.mol
PROVENANCE = {"seed": 3, "split": [4, 1, 7], "sha256": "ab" * 32, "metrics": {"force_mae": 0.1 + 0.2}, "test": None}


def make_model(dtype: torch.dtype = torch.float32) -> SchNet:
    torch.manual_seed(0)
    model = SchNet(CONFIG).to(dtype)
    model.elements = (1, 6, 8)
    # Numbers that float32 does not hold.
    model.scale.fill_(np.pi / 7)
    model.reference[[1, 6, 8]] = TOTAL_ENERGY / torch.tensor([3.0, 7.0, 9.0], dtype=torch.float64)
    return model


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A checkpoint of `make_model`."""
    path = tmp_path / "model.safetensors"
    save_model(make_model(), path, **PROVENANCE)
    return path


def assert_equal_models(a: SchNet, b: SchNet) -> None:
    assert a.config == b.config
    assert a.elements == b.elements
    state_a, state_b = a.state_dict(), b.state_dict()
    assert state_a.keys() == state_b.keys()
    for name, tensor in state_a.items():
        assert tensor.dtype == state_b[name].dtype, name
        assert torch.equal(tensor, state_b[name]), name


def assert_refused(path: Path, read: Callable[[Path], object] = load_checkpoint) -> str:
    """`path` must raise a CheckpointError of one line that names it; the line."""
    with pytest.raises(CheckpointError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message
    assert len(message.splitlines()) == 1
    return message


def split_header(content: bytes) -> tuple[dict[str, Any], bytes]:
    """A safetensors file's header and tensor data."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join_header(header: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def forge(path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], object]) -> None:
    """Change header and tensors of a checkpoint and write it with a digest that fits."""
    tensors, header = read_tensors(path, "model")
    change(header, tensors)
    write_tensors(path, tensors, "model", header)


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


def test_missing_file(tmp_path: Path) -> None:
    assert "no such file" in assert_refused(tmp_path / "absent.safetensors")


def test_folder_instead_of_a_file(tmp_path: Path) -> None:
    assert_refused(tmp_path)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100])
def test_truncated_in_the_header(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])
    assert "truncated" in assert_refused(file)


@pytest.mark.parametrize("missing", [1, 4, 100, 1000])
def test_truncated_in_the_tensors(file: Path, missing: int) -> None:
    content = file.read_bytes()
    assert len(split_header(content)[1]) > missing
    file.write_bytes(content[:-missing])
    assert "truncated" in assert_refused(file)


def test_something_appended(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0" * 8)
    assert_refused(file)


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes(file: Path, seed: int) -> None:
    file.write_bytes(np.random.default_rng(seed).bytes(2000))
    assert "not a safetensors file" in assert_refused(file)


@pytest.mark.parametrize(
    "content",
    [b"a line\nof text\n" * 100, (10**18).to_bytes(8, "little") + b"{}", b"\x10" + b"\0" * 7 + b"\xff" * 100],
    ids=["text", "endless header", "not UTF-8"],
)
def test_foreign_bytes(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert "not a safetensors file" in assert_refused(file)


class MakesFolder:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("pickled_by", ["pickle", "torch"])
def test_pickle_is_refused_and_does_not_run(file: Path, tmp_path: Path, pickled_by: str) -> None:
    mark = tmp_path / "code was run"
    if pickled_by == "pickle":
        file.write_bytes(pickle.dumps(MakesFolder(mark)))
        pickle.loads(file.read_bytes())
    else:
        torch.save(MakesFolder(mark), file)
        with file.open("rb") as stream:
            torch.load(stream, weights_only=False)
    assert mark.exists(), "the payload would not have run anyway"
    mark.rmdir()
    assert_refused(file)
    assert_refused(file, load_model)
    assert not mark.exists()


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_safetensors_of_another_program(file: Path, metadata: dict[str, str] | None) -> None:
    file.write_bytes(save(make_model().state_dict(), metadata))
    assert "another program" in assert_refused(file)


@pytest.mark.parametrize("version", ["2", "17", "2.0", "next", "", "-1"])
def test_newer_or_unknown_format_version(file: Path, version: str) -> None:
    header, data = split_header(file.read_bytes())
    header["__metadata__"]["version"] = version
    file.write_bytes(join_header(header, data))
    message = assert_refused(file)
    assert "version" in message
    assert "upgrade" in message


def test_rewriting_the_same_header_is_not_tampering(file: Path) -> None:
    # Else the tests of changed headers below could fail for the way they write files.
    file.write_bytes(join_header(*split_header(file.read_bytes())))
    assert_equal_models(load_checkpoint(file), make_model())


@pytest.mark.parametrize("position", [0, 1, 0.25, 0.5, -1])
def test_flipped_bit_of_a_tensor(file: Path, position: float) -> None:
    content = bytearray(file.read_bytes())
    size = len(split_header(bytes(content))[1])
    at = len(content) - size + int(position * size) if 0 < position < 1 else int(position) % size - size
    content[at] ^= 1
    file.write_bytes(content)
    assert "SHA-256" in assert_refused(file)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("elements", [1, 6, 7, 8]),
        ("units", {"energy": "kcal/mol", "length": "Å", "forces": "kcal/mol/Å"}),
        ("provenance", {**PROVENANCE, "seed": 4}),
        ("config", {**CONFIG.to_dict(), "cutoff": 4.5}),
        ("config", {**CONFIG.to_dict(), "activation": "silu"}),
    ],
)
def test_edited_header(file: Path, key: str, value: object) -> None:
    header, data = split_header(file.read_bytes())
    content = json.loads(header["__metadata__"]["header"])
    assert content[key] != value
    content[key] = value
    header["__metadata__"]["header"] = json.dumps(content, sort_keys=True)
    file.write_bytes(join_header(header, data))
    assert "SHA-256" in assert_refused(file)
    assert "SHA-256" in assert_refused(file, read_provenance)


@pytest.mark.parametrize(
    ("key", "value"), [("sha256", "00" * 32), ("header", "{}"), ("header", ""), ("schnet_ase", "x"), ("version", "0")]
)
def test_edited_metadata(file: Path, key: str, value: str) -> None:
    header, data = split_header(file.read_bytes())
    header["__metadata__"][key] = value
    file.write_bytes(join_header(header, data))
    assert_refused(file)


@pytest.mark.parametrize("key", ["sha256", "header", "version", "schnet_ase"])
def test_metadata_with_a_key_missing(file: Path, key: str) -> None:
    header, data = split_header(file.read_bytes())
    del header["__metadata__"][key]
    file.write_bytes(join_header(header, data))
    assert_refused(file)


def test_tensors_that_changed_names(file: Path) -> None:
    # The same bytes in the same order: two layers of one shape, swapped.
    header, data = split_header(file.read_bytes())
    one, two = "interactions.0.dense1.weight", "interactions.0.dense2.weight"
    header[one], header[two] = header[two], header[one]
    file.write_bytes(join_header(header, data))
    assert "SHA-256" in assert_refused(file)


@pytest.mark.parametrize("change", [{"shape": [3, 2]}, {"shape": [6]}, {"dtype": "I64"}, {"name": "moments2"}], ids=str)
def test_tensor_of_the_same_bytes_read_as_another(tmp_path: Path, change: dict[str, Any]) -> None:
    # A training state is not held against a network, so only the digest can tell.
    state = tmp_path / "state.safetensors"
    write_tensors(state, {"moments": torch.rand(2, 3, dtype=torch.float64)}, "training state", {})
    header, data = split_header(state.read_bytes())
    tensor = header.pop("moments")
    header[change.get("name", "moments")] = {key: change.get(key, value) for key, value in tensor.items()}
    state.write_bytes(join_header(header, data))
    assert "SHA-256" in assert_refused(state, lambda path: read_tensors(path, "training state"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_flipping_any_bit_is_refused_or_changes_nothing(file: Path, place: float, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    damaged = file.with_name("damaged.safetensors")
    damaged.write_bytes(content)
    try:
        loaded = load_checkpoint(damaged)
    except CheckpointError:
        assert_refused(damaged)
        return
    assert_equal_models(loaded, make_model())
    assert read_provenance(damaged) == PROVENANCE


def test_wrong_kind(file: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.safetensors"
    write_tensors(state, {"step": torch.tensor(3)}, "training state", {})
    message = assert_refused(state)
    assert "training state" in message
    assert "model" in message
    assert_refused(state, read_provenance)
    assert_refused(file, lambda path: read_tensors(path, "training state"))


@pytest.mark.parametrize(
    ("field", "value"), [("n_features", 8), ("n_interactions", 1), ("n_rbf", 7), ("max_z", 50), ("norm", None)]
)
def test_config_that_does_not_fit_the_tensors(file: Path, field: str, value: object) -> None:
    forge(file, lambda header, tensors: header["config"].update({field: value}))
    assert "do not fit" in assert_refused(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda header, tensors: header["config"].update(n_features=-1),
        lambda header, tensors: header["config"].update(invented_later=True),
        lambda header, tensors: header["config"].update(cutoff="4.0"),
        lambda header, tensors: header["config"].update(activation="none such"),
        lambda header, tensors: header.update(config=[1, 2]),
        lambda header, tensors: header.pop("config"),
        lambda header, tensors: tensors.pop("scale"),
        lambda header, tensors: tensors.pop("embedding.weight"),
        lambda header, tensors: tensors.update(invented_later=torch.zeros(3)),
        lambda header, tensors: tensors.update({"readout2.bias": torch.zeros(2)}),
    ],
    ids=[
        "config out of range",
        "config with a new field",
        "config of the wrong type",
        "unknown activation",
        "config not a table",
        "no config",
        "no scale",
        "no embedding",
        "a tensor more",
        "a tensor of the wrong shape",
    ],
)
def test_content_this_version_cannot_use(file: Path, change: Callable[..., object]) -> None:
    forge(file, change)
    assert_refused(file)


@pytest.mark.parametrize(
    "change",
    [lambda header: header.pop("elements"), lambda header: header.update(elements=8)],
    ids=["no elements", "elements not a list"],
)
def test_header_without_proper_elements(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    forge(file, lambda header, tensors: change(header))
    assert_refused(file)


def test_header_without_provenance(file: Path) -> None:
    forge(file, lambda header, tensors: header.pop("provenance"))
    assert_refused(file, read_provenance)


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
    pytest.importorskip("resource")
    script = (
        "import resource, signal, sys\n"
        "from schnet_ase import SchNet, save_model\n"
        "model = SchNet()\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "try:\n"
        "    save_model(model, sys.argv[1])\n"
        "except OSError as error:\n"
        "    print(error.errno)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, text=True, timeout=120, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == str(errno.EFBIG)
    assert_equal_models(load_checkpoint(file), make_model())
    assert os.listdir(file.parent) == [file.name]
