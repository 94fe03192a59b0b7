"""What a training keeps in its folder: its best model, and what a later start needs to go on with the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.optim import Optimizer

from schnet_ase.errors import TrainingError
from schnet_ase.networks import SchNet
from schnet_ase.registry.checkpoint import load_checkpoint, read_tensors
from schnet_ase.registry.lookup import BEST, STATE
from schnet_ase.registry.provenance import Row
from schnet_ase.uncertainty.metrics import Errors

LOCK = ".lock"


class TrainingResult(NamedTuple):
    """A finished training."""

    model: SchNet
    """The best model by validation loss."""
    path: Path
    """Its file."""
    best: Row
    """Its validation."""
    history: list[Row]
    test: Errors | None = None
    """On frames that were for tests."""


def read_result(folder: Path) -> TrainingResult:
    """What a training left in its folder.

    Raises
    ------
    CheckpointError
        There is none, or a file is damaged.
    """
    history = read_history(folder)
    best = min(history, key=lambda r: r.validation_loss)
    return TrainingResult(load_checkpoint(folder / BEST), folder / BEST, best, history)


def read_history(folder: Path) -> list[Row]:
    """The validations of a training, which may not be finished.

    Raises
    ------
    CheckpointError
        There is none, or the file is damaged.
    """
    return [Row.from_json(table) for table in read_tensors(folder / STATE, "training state").header["history"]]


@contextmanager
def only_here(folder: Path) -> Iterator[None]:
    """No other process trains in `folder`, which is made where missing, meanwhile; else a TrainingError."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK).acquire(timeout=0):
            yield
    except Timeout as error:
        raise TrainingError(f"{folder}: another process trains here; wait for it or choose another folder") from error


def own_random_numbers(device: torch.device) -> AbstractContextManager[None]:
    """The caller's generators are put back afterwards: the CPU's, and that of the GPU that is used."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def pack(model: SchNet, average: SchNet, optimizer: Optimizer) -> dict[str, Tensor]:
    """Weights, their average, the optimizer's memory and the random numbers' state, as named tensors on the CPU."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    tensors |= {
        f"optimizer.{index}.{key}": value
        for index, entry in optimizer.state_dict()["state"].items()
        for key, value in entry.items()
    }
    tensors["rng"] = torch.get_rng_state()
    device = model.scale.device
    if device.type == "cuda":  # dropout draws there
        tensors["rng_cuda"] = torch.cuda.get_rng_state(device)
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def unpack(tensors: dict[str, Tensor], model: SchNet, average: SchNet, optimizer: Optimizer) -> None:
    """Set everything to what `pack` was given."""
    model.load_state_dict(_under("model.", tensors))
    average.load_state_dict(_under("average.", tensors))
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under("optimizer.", tensors).items():
        index, key = name.split(".")
        # A copy, since the optimizer keeps this very tensor: as read it lies where it lay in the file, and products of
        # matrices that are aligned otherwise are rounded otherwise.
        state.setdefault(int(index), {})[key] = tensor.clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    torch.set_rng_state(tensors["rng"])
    device = model.scale.device
    if device.type == "cuda" and "rng_cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng_cuda"], device)


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Keys, dotted, under which two nested tables differ."""
    found = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(prefix + key)
    return found


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
