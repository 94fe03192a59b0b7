"""Radial basis functions, which represent a distance for the network, and envelopes, which end them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def gaussian(exponent: Tensor) -> Tensor:
    """Return ``exp(-exponent)``, but 0 below 1e-26, because subnormal numbers take a processor ten times as long."""
    return torch.where(exponent < 60.0, torch.exp(-exponent), 0.0)


class GaussianBasis(nn.Module):
    r"""Distances expanded in Gaussians, :math:`e_k(r) = \exp(-\gamma (r - \mu_k)^2)`.

    Parameters
    ----------
    n_rbf
        Number of centres :math:`\mu_k`, evenly spaced from 0 to `cutoff`.
    cutoff
        Å.
    gamma
        Å⁻²; None: from the spacing of the centres, :math:`1 / (2 \Delta^2)`.

    Attributes
    ----------
    finest : float
        Å; the shortest length on which the functions change (a standard deviation).
    reach : float
        Å; the distance at which the functions have decayed.
    width : float
        Standard deviation of the Gaussians, in their `coordinate`.

    References
    ----------
    Schütt et al., NeurIPS 30 (2017), eq. 3.
    """

    centers: Tensor

    def __init__(self, n_rbf: int, cutoff: float, gamma: float | None) -> None:
        super().__init__()
        self.gamma = 0.5 / (cutoff / (n_rbf - 1)) ** 2 if gamma is None else gamma
        self.width = self.finest = math.sqrt(0.5 / self.gamma)
        self.reach = cutoff + math.sqrt(40.0 / self.gamma)  # exp(-40) is 4e-18
        # It follows from the config and is not stored with the weights; nor may it follow torch.set_default_dtype.
        centers = torch.linspace(0.0, cutoff, n_rbf, dtype=torch.float32)
        self.register_buffer("centers", centers, persistent=False)

    def forward(self, distances: Tensor) -> Tensor:
        """Expand distances (P,) in Å into features (P, n_rbf)."""
        return gaussian(self.gamma * (distances[:, None] - self.centers) ** 2)

    def coordinate(self, distances: Tensor) -> Tensor:
        """Return the coordinate in which the functions are Gaussians."""
        return distances

    def distance(self, coordinates: Tensor) -> Tensor:
        """Return the distance, Å, of a coordinate: the inverse of `coordinate`."""
        return coordinates


class ExponentialBasis(nn.Module):
    r"""Gaussians of :math:`e^{-r}`: :math:`e_k(r) = \exp(-\beta (e^{-r} - \mu_k)^2)`, r in Å.

    Like the energy, they are fine at bond lengths and coarse where atoms are far apart: with the same number of
    functions, a few hundred frames determine the filters better than with Gaussians of the distance.

    Parameters
    ----------
    n_rbf
        Number K of centres :math:`\mu_k`, evenly spaced from :math:`e^{-r_c}` to 1;
        :math:`\beta = (2 (1 - e^{-r_c}) / K)^{-2}`.
    cutoff
        :math:`r_c`, Å.

    Attributes
    ----------
    finest, reach, width : float
        As in `GaussianBasis`.

    References
    ----------
    Unke, Meuwly, PhysNet, J. Chem. Theory Comput. 15, 3678 (2019), eq. 7.
    """

    centers: Tensor

    def __init__(self, n_rbf: int, cutoff: float) -> None:
        super().__init__()
        lowest = math.exp(-cutoff)
        self.beta = (2.0 / n_rbf * (1.0 - lowest)) ** -2
        self.width = self.finest = math.sqrt(0.5 / self.beta)  # at r = 0 they agree
        self.reach = 40.0  # exp(-40) is 4e-18
        centers = torch.linspace(lowest, 1.0, n_rbf, dtype=torch.float32)
        self.register_buffer("centers", centers, persistent=False)

    def forward(self, distances: Tensor) -> Tensor:
        """Expand distances (P,) in Å into features (P, n_rbf)."""
        return gaussian(self.beta * (self.coordinate(distances)[:, None] - self.centers) ** 2)

    def coordinate(self, distances: Tensor) -> Tensor:
        """Return the coordinate in which the functions are Gaussians."""
        return torch.exp(-distances)

    def distance(self, coordinates: Tensor) -> Tensor:
        """Return the distance, Å, of a coordinate: the inverse of `coordinate`."""
        return -torch.log(coordinates)


def cosine_envelope(distances: Tensor, cutoff: float) -> Tensor:
    r"""Cosine cutoff, :math:`f(r) = \frac12 (\cos(\pi r / r_c) + 1)` below `cutoff` and 0 beyond.

    Energy and force go to zero at the cutoff; the slope of the force jumps there by a term in
    :math:`f''(r_c) = \pi^2 / 2 r_c^2`. This is SchNetPack's envelope, for models made with SchNetPack.

    References
    ----------
    Behler, J. Chem. Phys. 134, 074106 (2011), eq. 4.
    """
    f = 0.5 * (torch.cos(math.pi / cutoff * distances) + 1.0)
    return torch.where(distances < cutoff, f, torch.zeros_like(f))


def polynomial_envelope(distances: Tensor, cutoff: float) -> Tensor:
    r"""Polynomial cutoff with x = r / r_c, :math:`f = 1 - 28 x^6 + 48 x^7 - 21 x^8`, 0 beyond `cutoff`.

    f, f' and f'' vanish at the cutoff, so that energy, force and the slope of the force go to zero smoothly.

    References
    ----------
    Gasteiger, Groß, Günnemann, ICLR (2020), eq. 8 with p = 6.
    """
    x = distances / cutoff
    f = 1.0 + x**6 * (-28.0 + x * (48.0 - 21.0 * x))
    return torch.where(distances < cutoff, f, torch.zeros_like(f))


ENVELOPES = {"cosine": cosine_envelope, "polynomial": polynomial_envelope}
