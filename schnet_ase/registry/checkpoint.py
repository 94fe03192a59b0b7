"""Checkpoints: one safetensors file per model with JSON in its header. Loading runs no code from the file."""

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
from schnet_ase.networks.config import TERMS
from schnet_ase.output.files import atomic_write

FORMAT_VERSION = "1"
WITH_TERMS = "2"
"""Format of models with an energy term beside the network; a version without such terms must refuse to read them."""


class Tensors(NamedTuple):
    """The content of a file: named tensors and a JSON header."""

    tensors: dict[str, Tensor]
    header: dict[str, Any]


def write_tensors(
    path: str | os.PathLike[str],
    tensors: dict[str, Tensor],
    kind: str,
    header: dict[str, Any],
) -> None:
    """Write tensors and a JSON header to a safetensors file, atomically and with a digest of both.

    Parameters
    ----------
    path
        Target file.
    tensors
        Named tensors.
    kind
        Content of the file, ``"model"`` or ``"training state"``, which is checked on reading.
    header
        Values that can be written as JSON.

    Raises
    ------
    OSError
        See `atomic_write`.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(header, sort_keys=True)
    metadata = {
        "schnet_ase": kind,
        "version": _version(header),
        "header": text,
        "sha256": _digest(tensors, kind, text),
    }
    atomic_write(path, save(tensors, metadata))


def read_tensors(path: str | os.PathLike[str], kind: str) -> Tensors:
    """Read a file written by `write_tensors`.

    Raises
    ------
    CheckpointError
        The file is missing, truncated, written by another program, of another kind or a newer format, or its content
        differs from what was written.
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
    version = metadata.get("version")
    if version not in (FORMAT_VERSION, WITH_TERMS):
        raise _unknown_version(file, version)
    if metadata["schnet_ase"] != kind:
        raise CheckpointError(f"{file}: holds a {metadata['schnet_ase']}; expected a {kind}")
    text = metadata.get("header", "")
    if _digest(tensors, kind, text) != metadata.get("sha256"):
        raise CheckpointError(
            f"{file}: the content is not what was written (SHA-256 differs): changed or damaged; get it again"
        )
    try:
        header = json.loads(text)
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{file}: header is not JSON ({error})") from error
    if version != _version(header):
        raise _unknown_version(file, version)
    return Tensors(tensors, header)


def _version(header: Any) -> str:
    """Return the format version for this header, which may be any JSON, since files are not trusted."""
    config = header.get("config") if isinstance(header, dict) else None
    named = isinstance(config, dict) and any(config.get(name) is not None for name in TERMS)
    return WITH_TERMS if named else FORMAT_VERSION


def _unknown_version(file: Path, version: str | None) -> CheckpointError:
    return CheckpointError(
        f"{file}: format version {version!r:.20}; this schnet_ase reads {FORMAT_VERSION!r} and, for models with a "
        f"prior, {WITH_TERMS!r}; upgrade schnet_ase if the file is newer"
    )


def save_model(model: SchNet, path: str | os.PathLike[str], /, **metadata: Any) -> None:
    """Write a model to one ``.safetensors`` file.

    Parameters
    ----------
    model
        The network; its dtype is kept.
    path
        Target file, replaced atomically.
    **metadata
        Provenance that can be written as JSON (data hash, split indices, seed, metrics, ...), kept in the header.

    Raises
    ------
    OSError
        The disk is full or the folder is not writable; an earlier file at `path` stays intact.
    """
    header = {
        "config": model.config.to_dict(),
        "elements": None if model.elements is None else list(model.elements),
        "units": {"energy": "eV", "length": "Å", "forces": "eV/Å"},
        "provenance": metadata,
    }
    write_tensors(path, model.state_dict(), "model", header)


def rewrite_with_prior(
    source: str | os.PathLike[str], target: str | os.PathLike[str], prior: str, **metadata: Any
) -> None:
    """Write the model of a file to another file, with the same weights and with a prior beside its network.

    Parameters
    ----------
    source, target
        File written by `save_model`, and the new file.
    prior
        Name of the prior, see `SchNetConfig`.
    **metadata
        Provenance to replace; the other provenance is kept, and with it the configuration of the training.

    Raises
    ------
    CheckpointError
        `source` cannot be read.
    OSError
        See `save_model`.
    """
    tensors, header = read_tensors(source, "model")
    header["config"]["prior"] = prior
    header["provenance"] = {**header["provenance"], **metadata}
    write_tensors(target, tensors, "model", header)


def load_checkpoint(path: str | os.PathLike[str]) -> SchNet:
    """Read a model written by `save_model`.

    Raises
    ------
    CheckpointError
        The file cannot be read as a model; the message names the file and the reason.
    """
    tensors, header = read_tensors(path, "model")
    try:
        with torch.random.fork_rng(devices=[]):  # the constructor draws initial weights, which are replaced at once
            model = SchNet(SchNetConfig(**header["config"]))
        model.to(tensors["embedding.weight"].dtype)
        model.load_state_dict(tensors)
        model.elements = None if header["elements"] is None else tuple(header["elements"])
    except (ValidationError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).replace("\n", " ")
        raise CheckpointError(f"{path}: config and weights do not fit this schnet_ase ({reason})") from error
    return model.eval()


def read_provenance(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the metadata that `save_model` was given; for a trained model, `Provenance.read` returns them typed.

    Raises
    ------
    CheckpointError
        The file cannot be read or has no provenance; the message names the file and the reason.
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
