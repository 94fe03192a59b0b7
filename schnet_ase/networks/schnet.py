r"""The SchNet network: embedding, interaction blocks with continuous-filter convolutions, per-atom readout.

Every pair of atoms is stored once. A filter depends only on the distance, so that :math:`W_{ij} = W_{ji}`: it is
evaluated once per pair and used in both directions.

References
----------
Schütt, Kindermans, Sauceda, Chmiela, Tkatchenko, Müller, *SchNet: A continuous-filter convolutional neural network
for modeling quantum interactions*, NeurIPS 30 (2017).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, cast

import torch
from torch import Tensor, nn

from schnet_ase.geometry.graph import Pairs
from schnet_ase.networks.activation import ACTIVATIONS
from schnet_ase.networks.config import SchNetConfig
from schnet_ase.networks.radial import ENVELOPES, ExponentialBasis, GaussianBasis


class FilterNetwork(nn.Module):
    """Two dense layers from radial features (P, n_rbf) to filters (P, F)."""

    def __init__(self, config: SchNetConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.activation_last = config.filter_activation_last
        self.dense1 = nn.Linear(config.n_rbf, config.n_features)
        self.dense2 = nn.Linear(config.n_features, config.n_features)

    def forward(self, radial: Tensor) -> Tensor:
        filters = self.dense2(self.activation(self.dense1(radial)))
        return self.activation(filters) if self.activation_last else filters


def cfconv(x: Tensor, filters: Tensor, pairs: Pairs) -> Tensor:
    r"""Continuous-filter convolution, :math:`y_i = \sum_j x_j \circ W(r_{ij})` (eq. 2).

    Parameters
    ----------
    x
        (N, F) features of the atoms.
    filters
        (P, F) filters of the pairs, including the envelope.
    pairs
        The P pairs, each once; both directions are summed here.

    Returns
    -------
    Tensor
        (N, F).
    """
    y = torch.zeros_like(x)
    y = y.index_add(0, pairs.first, x[pairs.second] * filters)
    return y.index_add(0, pairs.second, x[pairs.first] * filters)


class Interaction(nn.Module):
    """One interaction block: atom-wise, cfconv, atom-wise, activation, atom-wise. Its output is the residual (N, F)."""

    def __init__(self, config: SchNetConfig) -> None:
        super().__init__()
        F = config.n_features
        self.activation = ACTIVATIONS[config.activation]
        self.norm = _norm(config)
        self.filter_network = FilterNetwork(config)
        self.dense_in = nn.Linear(F, F, bias=config.interaction_bias)
        self.dense1 = nn.Linear(F, F)
        self.dense2 = nn.Linear(F, F)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, filters: Tensor, pairs: Pairs) -> Tensor:
        y = cfconv(self.dense_in(self.norm(x)), filters, pairs)
        residual: Tensor = self.dropout(self.dense2(self.activation(self.dense1(y))))
        return residual


class SchNet(nn.Module):
    r"""SchNet: atomic numbers and pair vectors to per-atom energies.

    .. math:: E_i = s \, o(x_i) + e_{z_i}, \qquad E = \sum_i E_i

    with the readout o, the scale s and per-element reference energies e fitted on the training set.

    Parameters
    ----------
    config
        Hyperparameters; the default is the seed report's default model.

    Attributes
    ----------
    elements : tuple of int or None
        Atomic numbers that the model was trained on; None for a bare module, which takes any number below `max_z`.
    scale, reference : Tensor
        Scalar and (max_z,) buffers in eV, float64 so that large total energies lose no digits.
    """

    member_shape: tuple[int, ...] = ()
    n_networks = 1
    scale: Tensor
    reference: Tensor

    def __init__(self, config: SchNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SchNetConfig()
        self.elements: tuple[int, ...] | None = None
        self.readout_activation = ACTIVATIONS[config.readout_activation or config.activation]
        self.envelope = ENVELOPES.get(config.envelope)
        self.embedding = nn.Embedding(config.max_z, config.n_features)
        self.basis = _basis(config)
        self.interactions = nn.ModuleList(Interaction(config) for _ in range(config.n_interactions))
        self.readout1 = nn.Linear(config.n_features, config.readout_features)
        self.readout2 = nn.Linear(config.readout_features, 1)
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("reference", torch.zeros(config.max_z, dtype=torch.float64))
        self.apply(_initialize)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # `model.float()` and `model.to(dtype)` change only the weights: energies of -4e5 kcal/mol do not fit float32.
        scale, reference = self.scale, self.reference
        super()._apply(fn, recurse)
        self.scale = scale.to(self.scale.device)
        self.reference = reference.to(self.reference.device)
        return self

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, in which the network computes."""
        return self.embedding.weight.dtype

    def forward(self, numbers: Tensor, vectors: Tensor, pairs: Pairs) -> Tensor:
        """Compute per-atom energies.

        Parameters
        ----------
        numbers
            (N,) atomic numbers.
        vectors
            (P, 3) from the first to the second atom of each pair, Å, float64.
        pairs
            The P pairs.

        Returns
        -------
        Tensor
            (N,) eV, float64.
        """
        return self.atom_energies(numbers, self.filters(torch.linalg.vector_norm(vectors, dim=-1)), pairs)

    def atom_energies(self, numbers: Tensor, filters: list[Tensor], pairs: Pairs) -> Tensor:
        """Compute per-atom energies, as `forward` does, from the filters of each interaction, (P, F)."""
        x = self.representation(numbers, filters, pairs)
        output: Tensor = self.readout2(self.readout_activation(self.readout1(x))).squeeze(-1)
        return output.to(torch.float64) * self.scale + self.reference[numbers]

    def representation(self, numbers: Tensor, filters: list[Tensor], pairs: Pairs) -> Tensor:
        """Return the (N, F) features of the atoms before the readout, which describe each atom and its surroundings."""
        x: Tensor = self.embedding(numbers)
        for interaction, pair_filters in zip(self.interactions, filters, strict=True):
            x = x + interaction(x, pair_filters, pairs)
        return x

    def filters(self, distances: Tensor) -> list[Tensor]:
        """Return the filters of each interaction with the envelope, from distances (P,) in Å: n_interactions times (P,
        F)."""
        filters = self.bare_filters(distances)
        if self.envelope is None:
            return filters
        envelope = self.envelope(distances, self.config.cutoff).to(self.dtype)[:, None]
        return [f * envelope for f in filters]

    def bare_filters(self, distances: Tensor) -> list[Tensor]:
        """Return the filters of each interaction without the envelope."""
        radial = self.basis(distances.to(self.dtype))
        return [cast("Interaction", interaction).filter_network(radial) for interaction in self.interactions]


def _basis(config: SchNetConfig) -> GaussianBasis | ExponentialBasis:
    if config.radial == "exponential":
        return ExponentialBasis(config.n_rbf, config.cutoff)
    return GaussianBasis(config.n_rbf, config.cutoff, config.gamma)


def _norm(config: SchNetConfig) -> nn.Module:
    if config.norm == "rms":
        return nn.RMSNorm(config.n_features)
    return nn.LayerNorm(config.n_features) if config.norm == "layer" else nn.Identity()


def _initialize(module: nn.Module) -> None:
    """Set Glorot-uniform weights and zero biases, as SchNet's authors do."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
