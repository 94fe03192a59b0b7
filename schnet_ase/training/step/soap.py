"""The optimizer SOAP: Adam in the eigenbasis of the gradients' second moments, in which scaling by element is
justified."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

DECAY = 0.95
"""Decay of all moving averages, as in the paper."""
TINY = 1e-8
"""Added to the root mean square in the denominator of an update."""
REFRESH = 10
"""Steps between two updates of the eigenbases."""


class SOAP(Optimizer):
    r"""Adam for vectors; for matrices, Adam in the eigenbases of the means of :math:`GG^T` and :math:`G^TG`.

    If features are nearly collinear, as those of the equivalent atoms of benzene, the elements of the gradient say
    little about the best step along each; its components in this basis do. Rotating the features rotates the path of
    the weights and changes nothing else.

    Parameters
    ----------
    parameters
        Parameters, which are updated in place.
    lr
        Learning rate.
    weight_decay
        Decoupled weight decay, as in AdamW.

    References
    ----------
    Vyas, Morwani, Zhao, Shapira, Brandfonbrener, Janson, Kakade, *SOAP: Improving and stabilizing Shampoo using Adam*,
    arXiv:2409.11321 (2024), algorithm 3. Here the first moment is kept in the eigenbasis and rotated with it.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the parameters from their gradients, those of one shape together, because the products are small."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.shape, []).append(parameter)
            for parameters in alike.values():
                torch._foreach_mul_(parameters, 1.0 - group["lr"] * group["weight_decay"])
                gradients = torch.stack([p.grad for p in parameters if p.grad is not None])
                update = _update(self.state[parameters[0]], gradients)
                torch._foreach_add_(parameters, list(update.unbind()), alpha=-group["lr"])


def _update(state: dict[str, Tensor], gradients: Tensor) -> Tensor:
    """Return the update of K parameters of one shape to subtract, in units of the learning rate: (K, *shape)."""
    if not state:
        state |= _start(gradients)
        if "left" in state:
            # In its own eigenbasis a gradient is diagonal: the rest of an update would consist of rounding errors.
            return torch.zeros_like(gradients)
    rotated = "left" in state
    state["step"] += 1
    step = state["step"].item()
    if rotated:
        state["left"].baddbmm_(gradients, gradients.mT, beta=DECAY, alpha=1.0 - DECAY)
        state["right"].baddbmm_(gradients.mT, gradients, beta=DECAY, alpha=1.0 - DECAY)
        if step % REFRESH == 0:
            _refresh(state)
        gradients = state["left_basis"].mT @ gradients @ state["right_basis"]
    state["mean"].lerp_(gradients, 1.0 - DECAY)
    state["square"].mul_(DECAY).addcmul_(gradients, gradients, value=1.0 - DECAY)
    # Both moments decay alike, so that in one basis no ratio exceeds 1 (Cauchy-Schwarz). Just after a refresh one can,
    # by orders of magnitude, because the second moment belongs to the old basis. Such a step ruined trainings.
    update = (state["mean"] / state["square"].sqrt().add_(TINY)).mul_((1.0 - DECAY**step) ** -0.5).clamp_(-1.0, 1.0)
    return state["left_basis"] @ update @ state["right_basis"].mT if rotated else update


def _start(gradients: Tensor) -> dict[str, Tensor]:
    state = {
        "step": torch.zeros((), device="cpu"),
        "mean": torch.zeros_like(gradients),
        "square": torch.zeros_like(gradients),
    }
    if gradients.ndim == 3 and min(gradients.shape[1:]) > 1:
        for side, moment in (("left", gradients @ gradients.mT), ("right", gradients.mT @ gradients)):
            state[side] = moment
            # In float64, because moments of nearly vanishing features are subnormal in float32, where eigh can fail.
            # Largest first, the order that power iterations preserve.
            vectors = torch.linalg.eigh(moment.double()).eigenvectors
            state[f"{side}_basis"] = vectors.flip(-1).to(moment.dtype).contiguous()
    return state


def _refresh(state: dict[str, Tensor]) -> None:
    """Do one power iteration of both bases, and rotate the first moment into the new ones."""
    turned = state["mean"]
    for side in ("left", "right"):
        old = state[f"{side}_basis"]
        new = torch.linalg.qr(state[side] @ old).Q
        turned = (new.mT @ old @ turned).mT
        state[f"{side}_basis"] = new.contiguous()
    state["mean"] = turned.contiguous()
