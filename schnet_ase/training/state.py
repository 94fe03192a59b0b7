"""Files in the folder of a training: its best model, and the state from which it resumes with the same numbers."""

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
    """Result of a finished training."""

    model: SchNet
    """Model with the lowest validation loss."""
    path: Path
    """File of this model."""
    best: Row
    """Validation of this model."""
    history: list[Row]
    """All validations."""
    test: Errors | None = None
    """Errors on the test frames; None if there are none."""


def read_result(folder: Path) -> TrainingResult:
    """Read the result of a training from its folder.

    Raises
    ------
    CheckpointError
        The folder has no training, or a file is damaged.
    """
    history = read_history(folder)
    best = min(history, key=lambda r: r.validation_loss)
    return TrainingResult(load_checkpoint(folder / BEST), folder / BEST, best, history)


def read_history(folder: Path) -> list[Row]:
    """Read the validations of a training, which need not be finished.

    Raises
    ------
    CheckpointError
        The folder has no training, or the file is damaged.
    """
    return [Row.from_json(table) for table in read_tensors(folder / STATE, "training state").header["history"]]


@contextmanager
def only_here(folder: Path) -> Iterator[None]:
    """Lock `folder` (created if needed) against other processes; raise TrainingError if it is already locked."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK).acquire(timeout=0):
            yield
    except Timeout as error:
        raise TrainingError(f"{folder}: another process trains here; wait for it or choose another folder") from error


def own_random_numbers(device: torch.device) -> AbstractContextManager[None]:
    """Restore the caller's random number generators afterwards: the CPU's and, if used, that of the GPU."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def pack(model: SchNet, average: SchNet, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return weights, their average, optimizer state and random number state as named tensors on the CPU."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    tensors |= {
        f"optimizer.{index}.{key}": value
        for index, entry in optimizer.state_dict()["state"].items()
        for key, value in entry.items()
    }
    tensors["rng"] = torch.get_rng_state()
    device = model.scale.device
    if device.type == "cuda":  # dropout draws its random numbers on the GPU
        tensors["rng_cuda"] = torch.cuda.get_rng_state(device)
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def unpack(tensors: dict[str, Tensor], model: SchNet, average: SchNet, optimizer: Optimizer) -> None:
    """Restore weights, their average, optimizer and random numbers from what `pack` returned."""
    model.load_state_dict(_under("model.", tensors))
    average.load_state_dict(_under("average.", tensors))
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under("optimizer.", tensors).items():
        index, key = name.split(".")
        # Copy the tensor, because the optimizer keeps it: its alignment in memory is that of the file, and products of
        # matrices with another alignment are rounded differently.
        state.setdefault(int(index), {})[key] = tensor.clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    torch.set_rng_state(tensors["rng"])
    device = model.scale.device
    if device.type == "cuda" and "rng_cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng_cuda"], device)


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted keys whose values differ between two nested tables."""
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
