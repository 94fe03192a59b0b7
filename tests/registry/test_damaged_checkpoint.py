"""Every damaged or foreign file is refused by name and without running its code."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from schnet_ase import load_model
from schnet_ase.errors import CheckpointError
from schnet_ase.registry.checkpoint import load_checkpoint, read_provenance, read_tensors, write_tensors
from tests.support.checkpoints import (
    CONFIG,
    PROVENANCE,
    assert_equal_models,
    assert_refused,
    forge,
    join_header,
    make_model,
    split_header,
)


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
