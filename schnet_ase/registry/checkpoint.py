"""Models as files: one safetensors file, everything else as JSON in its header. Loading runs no code from it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from schnet_ase.errors import CheckpointError
from schnet_ase.networks import SchNet, SchNetConfig
from schnet_ase.output.files import atomic_write

FORMAT_VERSION = "1"
WITH_TERMS = "2"
"""Format of models whose energy has a term beside the network, which a package that knows none must not leave out."""


class Tensors(NamedTuple):
    """The content of a file: named tensors and a JSON header."""

    tensors: dict[str, Tensor]
    header: dict[str, Any]


def write_tensors(
    path: str | os.PathLike[str],
    tensors: dict[str, Tensor],
    kind: str,
    header: dict[str, Any],
    version: str = FORMAT_VERSION,
) -> None:
    """Write tensors and a JSON header to a safetensors file, atomically and with a digest of both.

    Parameters
    ----------
    path
        Target file.
    tensors
        Named tensors.
    kind
        What the file holds, ``"model"`` or ``"training state"``; checked on reading.
    header
        JSON-able.
    version
        Of the format.

    Raises
    ------
    OSError
        As `atomic_write`.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(header, sort_keys=True)
    metadata = {
        "schnet_ase": kind,
        "version": version,
        "header": text,
        "sha256": _digest(tensors, kind, text),
    }
    atomic_write(path, save(tensors, metadata))


def read_tensors(path: str | os.PathLike[str], kind: str) -> Tensors:
    """Read what `write_tensors` wrote.

    Raises
    ------
    CheckpointError
        The file is missing, truncated, not ours, of another kind, of a newer format, or its content is not what
        was written.
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file; expected a checkpoint (.safetensors) written by schnet_ase")
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file}: truncated or not a safetensors file ({error}); expected a checkpoint written by schnet_ase"
        ) from error
    if "schnet_ase" not in metadata:
        raise CheckpointError(f"{file}: a safetensors file of another program; expected one written by schnet_ase")
    if metadata.get("version") not in (FORMAT_VERSION, WITH_TERMS):
        raise CheckpointError(
            f"{file}: format version {metadata.get('version')!r:.20}, this schnet_ase reads {FORMAT_VERSION!r} and "
            f"{WITH_TERMS!r}; "
            "upgrade schnet_ase if it is newer"
        )
    if metadata["schnet_ase"] != kind:
        raise CheckpointError(f"{file}: holds a {metadata['schnet_ase']}; expected a {kind}")
    text = metadata.get("header", "")
    if _digest(tensors, kind, text) != metadata.get("sha256"):
        raise CheckpointError(
            f"{file}: the content is not what was written (SHA-256 differs): changed or damaged; get it again"
        )
    try:
        return Tensors(tensors, json.loads(text))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{file}: header is not JSON ({error})") from error


def save_model(model: SchNet, path: str | os.PathLike[str], /, **metadata: Any) -> None:
    """Write a model to one ``.safetensors`` file.

    Parameters
    ----------
    model
        The network; its dtype is kept.
    path
        Target file, replaced atomically.
    **metadata
        JSON-able provenance (data hash, split indices, seed, metrics, ...) kept in the header.

    Raises
    ------
    OSError
        The disk is full or the folder not writable; an earlier file at `path` stays intact.
    """
    header = {
        "config": model.config.to_dict(),
        "elements": None if model.elements is None else list(model.elements),
        "units": {"energy": "eV", "length": "Å", "forces": "eV/Å"},
        "provenance": metadata,
    }
    version = WITH_TERMS if model.config.has_terms else FORMAT_VERSION
    write_tensors(path, model.state_dict(), "model", header, version)


def load_checkpoint(path: str | os.PathLike[str]) -> SchNet:
    """Read a model written by `save_model`.

    Raises
    ------
    CheckpointError
        Naming the file and the reason.
    """
    tensors, header = read_tensors(path, "model")
    try:
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and dropped at once
            model = SchNet(SchNetConfig(**header["config"]))
        model.to(tensors["embedding.weight"].dtype)
        model.load_state_dict(tensors)
        model.elements = None if header["elements"] is None else tuple(header["elements"])
    except (ValidationError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).replace("\n", " ")
        raise CheckpointError(f"{path}: config and weights do not fit this schnet_ase ({reason})") from error
    return model.eval()


def read_provenance(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The metadata that was given to `save_model`, as JSON; `Provenance` is that of a training.

    Raises
    ------
    CheckpointError
        Naming the file and the reason.
    """
    header = read_tensors(path, "model").header
    if not isinstance(header.get("provenance"), dict):
        raise CheckpointError(f"{path}: header has no provenance")
    provenance: dict[str, Any] = header["provenance"]
    return provenance


def _digest(tensors: dict[str, Tensor], kind: str, header: str) -> str:
    digest = hashlib.sha256(f"{kind}\n{header}\n".encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
