"""Train several networks side by side as one, each with its own weights and batch, to give a GPU enough work."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from schnet_ase.geometry.graph import Pairs
from schnet_ase.networks import SchNet


class SideBySide(nn.Module):
    """K `SchNet` models on a graph of K shares, the k-th for the k-th model.

    Everything that a `SchNet` does to a single atom or pair is a matrix product with the model's weights, so that K
    models are batched products. Sums over pairs need no change, because there are no pairs between shares.

    Parameters
    ----------
    models
        Models of one config, without dropout. Their parameters become parts of this module's parameters, so that a
        change of one is a change of the other.

    Attributes
    ----------
    n_networks : int
        K.
    """

    member_shape: tuple[int, ...] = ()
    scale: Tensor
    reference: Tensor

    def __init__(self, models: Sequence[SchNet]) -> None:
        super().__init__()
        self.n_networks = len(models)
        self.models_parameters = [dict(model.named_parameters()) for model in models]
        self.network = copy.deepcopy(models[0])
        # Scale and reference are those of the models; one and zero change nothing here.
        self.network.scale.fill_(1.0)
        self.network.reference.zero_()
        self.register_buffer("scale", torch.stack([model.scale for model in models]))
        self.register_buffer("reference", torch.stack([model.reference for model in models]))
        for name, module in models[0].named_modules():
            if kind := _KINDS.get(type(module)):
                alike: list[Any] = [model.get_submodule(name) for model in models]
                self.network.set_submodule(name, kind(alike))
        for name, parameter in self.network.named_parameters():
            for k, own in enumerate(self.models_parameters):
                own[name].data = parameter.detach()[k]

    def forward(self, numbers: Tensor, vectors: Tensor, pairs: Pairs) -> Tensor:
        """Compute per-atom energies (N,), eV; see `SchNet.forward`. Every share has N / K atoms and P / K pairs."""
        energies: Tensor = self.network(numbers, vectors, pairs)
        reference = self.reference.gather(1, numbers.view(self.n_networks, -1))
        return (energies.view_as(reference) * self.scale[:, None] + reference).flatten()

    def hand_out_gradients(self) -> None:
        """Give each model its part of the gradient."""
        for name, parameter in self.network.named_parameters():
            for k, own in enumerate(self.models_parameters):
                own[name].grad = None if parameter.grad is None else parameter.grad[k]


class _Linear(nn.Module):
    """K linear layers: (K n, features) to (K n, out)."""

    def __init__(self, modules: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = _stacked([m.weight for m in modules])
        self.bias = None if modules[0].bias is None else _stacked([m.bias for m in modules])

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(len(self.weight), -1, x.shape[-1])
        if self.bias is None:
            return torch.bmm(x, self.weight.mT).flatten(0, 1)
        return torch.baddbmm(self.bias[:, None], x, self.weight.mT).flatten(0, 1)


class _Embedding(nn.Module):
    """K embeddings: (K n,) to (K n, features)."""

    def __init__(self, modules: Sequence[nn.Embedding]) -> None:
        super().__init__()
        self.weight = _stacked([m.weight for m in modules])

    def forward(self, numbers: Tensor) -> Tensor:
        n_networks, n_rows, _ = self.weight.shape
        own = n_rows * torch.arange(n_networks, device=numbers.device)
        rows = numbers.view(n_networks, -1) + own[:, None]
        return self.weight.flatten(0, 1)[rows.flatten()]


class _Norm(nn.Module):
    """K norms: (K n, features) to the same shape."""

    def __init__(self, modules: Sequence[nn.LayerNorm | nn.RMSNorm]) -> None:
        super().__init__()
        self.bare = copy.deepcopy(modules[0])
        self.bare.register_parameter("weight", None)
        self.bare.register_parameter("bias", None)
        self.weight = _stacked([m.weight for m in modules])
        biases = [m.bias for m in modules if isinstance(m, nn.LayerNorm)]
        self.bias = _stacked(biases) if biases else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bare(x)
        y = y.view(len(self.weight), -1, x.shape[-1]) * self.weight[:, None]
        return (y if self.bias is None else y + self.bias[:, None]).flatten(0, 1)


_KINDS: dict[type[nn.Module], Any] = {
    nn.Linear: _Linear,
    nn.Embedding: _Embedding,
    nn.LayerNorm: _Norm,
    nn.RMSNorm: _Norm,
}


def _stacked(parameters: Sequence[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.stack([p.detach() for p in parameters]))
