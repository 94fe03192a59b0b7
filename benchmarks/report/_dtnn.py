"""The deep tensor neural network (Schütt et al., Nature Communications 8, 13890 (2017)), to count its parameters.

Its sizes are those that give the number of the seed report: embeddings of 30 features for 20 elements, 60 factors and
100 radial functions, interactions that share their weights, and an output network of 15 hidden units.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DTNN(nn.Module):
    """Energies of atoms from their elements and the distances between them."""

    def __init__(self, features: int = 30, factors: int = 60, radial: int = 100, elements: int = 20) -> None:
        super().__init__()
        self.embedding = nn.Embedding(elements, features)
        self.of_features = nn.Linear(features, factors)
        self.of_distances = nn.Linear(radial, factors)
        self.of_both = nn.Linear(factors, features, bias=False)
        self.output = nn.Sequential(nn.Linear(features, features // 2), nn.Tanh(), nn.Linear(features // 2, 1))

    def forward(self, numbers: Tensor, radial: Tensor, interactions: int = 3) -> Tensor:
        """Energies (N,) from atomic numbers (N,) and the radial functions of all distances (N, N, radial)."""
        c = self.embedding(numbers)
        others = 1.0 - torch.eye(len(numbers))
        for _ in range(interactions):
            v = torch.tanh(self.of_both(self.of_features(c)[None] * self.of_distances(radial)))
            c = c + (others[..., None] * v).sum(dim=1)
        energies: Tensor = self.output(c)[:, 0]
        return energies
