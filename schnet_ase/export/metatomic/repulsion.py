"""The repulsion of `priors.zbl` in a form that TorchScript compiles."""

import math

import torch
from torch import Tensor, nn

from schnet_ase.priors.repulsion import COULOMB
from schnet_ase.priors.zbl import reaches, screenings


class Repulsion(nn.Module):
    """Energies of the repulsion; see `priors.zbl` for its formulas.

    Parameters
    ----------
    max_z
        Atomic numbers are below it.
    cutoff
        Å, beyond which no pair repels; None: no such bound.
    """

    reaches: Tensor
    screenings: Tensor

    def __init__(self, max_z: int, cutoff: float | None) -> None:
        super().__init__()
        self.coulomb = COULOMB
        self.cutoff = math.inf if cutoff is None else cutoff
        self.register_buffer("reaches", torch.from_numpy(reaches(max_z)))
        self.register_buffer("screenings", torch.from_numpy(screenings(max_z)))

    def forward(self, numbers: Tensor, vectors: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Return per-atom energies (N,), eV, from numbers (N,), pair vectors (P, 3) in Å, and pairs (P,)."""
        reach = torch.clamp(self.reaches[numbers[first]] + self.reaches[numbers[second]], max=self.cutoff)
        r = torch.linalg.vector_norm(vectors, dim=-1)
        near = torch.nonzero(r < reach).squeeze(-1)
        first, second, r, reach = first[near], second[near], r[near], reach[near]
        x = (self.screenings[numbers[first]] + self.screenings[numbers[second]]) * r
        screened = 0.18175 * torch.exp(-3.19980 * x) + 0.50986 * torch.exp(-0.94229 * x)
        screened = screened + 0.28022 * torch.exp(-0.40290 * x) + 0.02817 * torch.exp(-0.20162 * x)
        y = r / reach
        switch = 1.0 + y**6 * (-28.0 + y * (48.0 - 21.0 * y))
        charges = (numbers[first] * numbers[second]).to(r.dtype)
        half = 0.5 * self.coulomb * charges / r * screened * switch
        energies = torch.zeros(numbers.shape[0], dtype=r.dtype, device=r.device)
        return energies.index_add(0, first, half).index_add(0, second, half)
