"""A checkpoint, its header, and whether it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import units

from schnet_ase import SchNet, SchNetConfig
from schnet_ase.errors import CheckpointError
from schnet_ase.registry.checkpoint import load_checkpoint, read_tensors, write_tensors

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
