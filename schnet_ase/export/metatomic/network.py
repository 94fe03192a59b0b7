"""M networks of one config in a form that TorchScript compiles, with a leading axis for the members.

It repeats `networks.schnet`, whose functions as attributes and keyword checks TorchScript does not know; the tests
compare the two for every kind of config.
"""

import math
from collections.abc import Mapping
from typing import List

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from schnet_ase.networks import SchNetConfig
from schnet_ase.networks.schnet import SchNet


class Members(nn.Module):
    """Per-atom energies and features of M members.

    Parameters
    ----------
    models
        M models of one config.
    dtype
        In which the networks compute; energies are float64.
    """

    reference: Tensor
    scale: Tensor
    embedding: Tensor

    def __init__(self, models: List[SchNet], dtype: torch.dtype) -> None:
        super().__init__()
        config = models[0].config
        states = [model.state_dict() for model in models]
        stacked = {name: torch.stack([s[name].detach().cpu() for s in states]) for name in states[0]}
        state = {name: t.to(torch.float64 if name in ("scale", "reference") else dtype) for name, t in stacked.items()}
        self.members = len(models)
        self.activation = config.activation
        self.readout_activation = config.readout_activation or config.activation
        self.basis = Basis(config, models[0].basis.centers.to(dtype))
        self.blocks = nn.ModuleList(
            Block(config, _below(state, f"interactions.{k}.")) for k in range(config.n_interactions)
        )
        self.readout1 = Linear(_below(state, "readout1."))
        self.readout2 = Linear(_below(state, "readout2."))
        for name in ("scale", "reference"):
            self.register_buffer(name, state[name])
        self.register_buffer("embedding", state["embedding.weight"])

    def features(self, numbers: Tensor, vectors: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Return the features (M, N, F) from numbers (N,), pair vectors (P, 3) in Å, and each pair's atoms (P,)."""
        radial, envelope = self.basis(torch.linalg.vector_norm(vectors, dim=-1), self.embedding.dtype)
        x = self.embedding[:, numbers]
        for block in self.blocks:
            x = x + block(x, radial, envelope, first, second)
        return x

    def forward(self, x: Tensor, numbers: Tensor) -> Tensor:
        """Return per-atom energies (M, N), eV, from features."""
        output = self.readout2(activate(self.readout_activation, self.readout1(x))).squeeze(-1)
        energies: Tensor = output.to(torch.float64) * self.scale[:, None] + self.reference[:, numbers]
        return energies


class Basis(nn.Module):
    """Radial functions and envelope."""

    centers: Tensor
    exponent: float

    def __init__(self, config: SchNetConfig, centers: Tensor) -> None:
        super().__init__()
        self.exponential = config.radial == "exponential"
        if self.exponential:
            self.exponent = (2.0 / config.n_rbf * (1.0 - math.exp(-config.cutoff))) ** -2
        elif config.gamma is not None:
            self.exponent = config.gamma
        else:
            self.exponent = 0.5 / (config.cutoff / (config.n_rbf - 1)) ** 2
        self.envelope: str = config.envelope
        self.cutoff = config.cutoff
        self.register_buffer("centers", centers)

    def forward(self, distances: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return features (P, K) and envelope (P, 1) of distances (P,), Å."""
        r = distances.to(dtype)
        if self.exponential:
            r = torch.exp(-r)
        exponent = self.exponent * (r[:, None] - self.centers) ** 2
        radial = torch.where(exponent < 60.0, torch.exp(-exponent), torch.zeros_like(exponent))
        return radial, self._envelope(distances).to(dtype)[:, None]

    def _envelope(self, r: Tensor) -> Tensor:
        if self.envelope == "none":
            return torch.ones_like(r)
        if self.envelope == "cosine":
            f = 0.5 * (torch.cos(math.pi / self.cutoff * r) + 1.0)
        else:
            x = r / self.cutoff
            f = 1.0 + x**6 * (-28.0 + x * (48.0 - 21.0 * x))
        return torch.where(r < self.cutoff, f, torch.zeros_like(f))


class Block(nn.Module):
    """One interaction block of all members."""

    def __init__(self, config: SchNetConfig, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.activation = config.activation
        self.activation_last = config.filter_activation_last
        self.norm = Norm(config.norm or "", _below(state, "norm."))
        self.filter1 = Linear(_below(state, "filter_network.dense1."))
        self.filter2 = Linear(_below(state, "filter_network.dense2."))
        self.dense_in = Linear(_below(state, "dense_in."))
        self.dense1 = Linear(_below(state, "dense1."))
        self.dense2 = Linear(_below(state, "dense2."))

    def forward(self, x: Tensor, radial: Tensor, envelope: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Return the residual (M, N, F)."""
        filters = self.filter2(activate(self.activation, self.filter1(radial)))
        if self.activation_last:
            filters = activate(self.activation, filters)
        filters = filters * envelope
        x = self.dense_in(self.norm(x))
        y = torch.zeros_like(x)
        y = y.index_add(1, first, x[:, second] * filters)
        y = y.index_add(1, second, x[:, first] * filters)
        residual: Tensor = self.dense2(activate(self.activation, self.dense1(y)))
        return residual


class Linear(nn.Module):
    """Dense layer of all members: (..., I) or (M, ..., I) to (M, ..., O)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.register_buffer("weight", state["weight"].transpose(1, 2).contiguous())
        bias = state["bias"] if "bias" in state else torch.zeros_like(state["weight"][:, :, 0])
        self.register_buffer("bias", bias[:, None])

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(x, self.weight) + self.bias


class Norm(nn.Module):
    """Normalization of the features of all members."""

    weight: Tensor
    bias: Tensor

    def __init__(self, kind: str, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("weight", state["weight"][:, None] if kind else torch.zeros(0))
        self.register_buffer("bias", state["bias"][:, None] if kind == "layer" else torch.zeros(0))
        self.eps = 1e-5 if kind == "layer" else float(torch.finfo(self.weight.dtype).eps)  # torch.nn's defaults

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "layer":
            x = x - x.mean(dim=-1, keepdim=True)
            return x * torch.rsqrt((x * x).mean(dim=-1, keepdim=True) + self.eps) * self.weight + self.bias
        if self.kind == "rms":
            return x * torch.rsqrt((x * x).mean(dim=-1, keepdim=True) + self.eps) * self.weight
        return x


def activate(name: str, x: Tensor) -> Tensor:
    """Return the activation `name` of `x`; see `networks.activation`."""
    if name == "ssp":
        return -F.logsigmoid(-x) - math.log(2.0)
    if name == "silu":
        return F.silu(x)
    if name == "gelu":
        return F.gelu(x)
    if name == "softplus":
        return F.softplus(x)
    return torch.tanh(x)


def _below(state: Mapping[str, Tensor], prefix: str) -> Mapping[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
