"""Networks that no longer change, and what engines derive from their weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from schnet_ase.engine.layout import Shape, Weights
from schnet_ase.engine.weights import lay_out
from schnet_ase.networks import SchNet, SchNetConfig, StackedSchNet


class LaidOut(NamedTuple):
    """Weights in the compiled kernel's order."""

    shape: Shape
    weights: Weights


class FixedNetworks:
    """One or several networks that no longer change, shared by all calculators and engines that compute them.

    The compiled engine's tables are made once for each dtype. A copy is the object itself, and a pickle holds only the
    networks.

    Parameters
    ----------
    models
        At least one model, all of one config, which nobody else may change: of a user's module give a copy.

    Attributes
    ----------
    config : SchNetConfig
        Config of the networks.
    elements : tuple of int or None
        Atomic numbers that all of them were trained on; None if no network has a list.
    member_shape : tuple of int
        ``()`` for one network, ``(M,)`` for several.

    Raises
    ------
    StructureError
        There are no models, or they have different configs.
    """

    def __init__(self, models: Sequence[SchNet]) -> None:
        with torch.inference_mode(False):
            self.models = [model.eval().requires_grad_(False) for model in models]
            self._model = self.models[0] if len(self.models) == 1 else StackedSchNet(self.models)
        self.config: SchNetConfig = self._model.config
        self.elements = self._model.elements
        self.member_shape = self._model.member_shape
        self._laid_out: dict[str, LaidOut] = {}
        self._members: dict[tuple[int, torch.device, torch.dtype], SchNet] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> FixedNetworks:
        return self

    def __reduce__(self) -> tuple[type[FixedNetworks], tuple[list[SchNet]]]:
        return FixedNetworks, (self.models,)

    def laid_out(self, dtype: str) -> LaidOut:
        """Return the weights for the compiled kernel, ``"float32"`` or ``"float64"``.

        Raises
        ------
        TableError
            The filters cannot be tabulated.
        """
        if dtype not in self._laid_out:
            shape, weights = lay_out(self.models, np.dtype(dtype))
            self._laid_out[dtype] = LaidOut(shape, weights.on_lines())
        return self._laid_out[dtype]

    def on(self, device: torch.device, dtype: torch.dtype) -> SchNet | StackedSchNet:
        """Return a copy of the networks on a device, for PyTorch; scale and reference energies stay float64.

        Each caller gets its own, because a stack changes its modules while it computes.
        """
        with torch.inference_mode(False):
            return copy.deepcopy(self._model).to(device, dtype)

    def member(self, m: int, device: torch.device, dtype: torch.dtype) -> SchNet:
        """Return the network of member `m` on a device, for PyTorch; made once."""
        key = (m, device, dtype)
        if key not in self._members:
            with torch.inference_mode(False):
                self._members[key] = copy.deepcopy(self.models[m]).to(device, dtype)
        return self._members[key]
