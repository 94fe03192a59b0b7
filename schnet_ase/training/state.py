"""Where a training stands: all that a later start needs to go on with the same numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from schnet_ase.model import SchNet


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
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def unpack(tensors: dict[str, Tensor], model: SchNet, average: SchNet, optimizer: Optimizer) -> None:
    """Set everything to what `pack` was given."""
    model.load_state_dict(_under("model.", tensors))
    average.load_state_dict(_under("average.", tensors))
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under("optimizer.", tensors).items():
        index, key = name.split(".")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    torch.set_rng_state(tensors["rng"])


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
