"""Activations of the network, such as the shifted softplus of SchNet."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

LN2 = math.log(2.0)


def ssp(x: Tensor) -> Tensor:
    r"""Shifted softplus, :math:`\ln(e^x / 2 + 1 / 2)`, stable for every finite input.

    The textbook form overflows float32 near x = 88.7, and inputs of 300 occurred in trained networks.
    ``-log sigmoid(-x)`` is the same function without a growing intermediate, and its first (sigmoid) and
    second derivatives are exact. `torch.nn.functional.softplus` is not exact: it becomes linear beyond a threshold,
    where its second derivative jumps to zero.

    Parameters
    ----------
    x
        Any shape, dimensionless.

    Returns
    -------
    Tensor
        The shape of `x`; ``ssp(0) = 0``.

    References
    ----------
    Schütt et al., NeurIPS 30 (2017), section 4.1.
    """
    return -F.logsigmoid(-x) - LN2


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "ssp": ssp,
    "silu": F.silu,
    "gelu": F.gelu,
    "softplus": F.softplus,
    "tanh": torch.tanh,
}
