"""Evaluate several networks of one shape at once, with stacked weights and a shared geometry."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from schnet_ase.errors import StructureError
from schnet_ase.geometry.graph import Pairs
from schnet_ase.networks.config import SchNetConfig
from schnet_ase.networks.schnet import SchNet


class StackedSchNet:
    """M `SchNet` models as one, in a single batched pass.

    Parameters
    ----------
    models
        At least one model, all of one config. Their weights are copied.

    Attributes
    ----------
    config : SchNetConfig
        The members' config.
    elements : tuple of int or None
        Atomic numbers that every member was trained on; None if no member has a list.
    member_shape : tuple of int
        ``(M,)``.

    Raises
    ------
    StructureError
        There are no models, or they have different configs.
    """

    def __init__(self, models: Sequence[SchNet]) -> None:
        if not models:
            raise StructureError("an ensemble of no models; expected at least one")
        self.config: SchNetConfig = models[0].config
        for m, model in enumerate(models):
            if model.config != self.config:
                raise StructureError(f"member {m} has another config than member 0; an ensemble has one for all")
        lists = [set(model.elements) for model in models if model.elements is not None]
        self.elements = tuple(sorted(set.intersection(*lists))) if lists else None
        self.member_shape: tuple[int, ...] = (len(models),)
        parameters, buffers = torch.func.stack_module_state(list(models))
        self._state = {name: t.detach().clone() for name, t in {**parameters, **buffers}.items()}
        self._skeleton = copy.deepcopy(models[0]).eval()

    def to(self, device: torch.device, dtype: torch.dtype) -> StackedSchNet:
        """Move the weights; scale and reference energies stay float64."""
        self._skeleton.to(device, dtype)
        dtypes = {name: t.dtype for name, t in self._skeleton.state_dict(keep_vars=True).items()}
        self._state = {name: t.to(device, dtypes.get(name, dtype)) for name, t in self._state.items()}
        return self

    def __call__(self, numbers: Tensor, vectors: Tensor, pairs: Pairs) -> Tensor:
        """Compute per-atom energies (M, N) in eV from pair vectors (M, P, 3) in Å; see `SchNet.forward`."""

        def one(state: dict[str, Tensor], vectors: Tensor) -> Tensor:
            energies: Tensor = torch.func.functional_call(self._skeleton, state, (numbers, vectors, pairs))
            return energies

        result: Tensor = torch.vmap(one)(self._state, vectors)
        return result
