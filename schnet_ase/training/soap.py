"""The optimizer SOAP: Adam in the eigenbasis of the gradients' second moments, where its scaling by element fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

DECAY = 0.95
"""Of all moving averages, the paper's."""
TINY = 1e-8
"""Added to the root mean square that an update is divided by."""
REFRESH = 10
"""Steps between two updates of the eigenbases."""


class SOAP(Optimizer):
    r"""Adam for vectors; for matrices, Adam in the eigenbases of the means of :math:`GG^T` and :math:`G^TG`.

    Where features are nearly collinear, as those of the equivalent atoms of benzene are, the gradient's elements say
    little of how far to go along each; its components in this basis do. Rotating the features rotates the path of the
    weights and changes nothing else.

    Parameters
    ----------
    parameters
        Trained in place.
    lr
        Learning rate.
    weight_decay
        Decoupled, as AdamW's.

    References
    ----------
    Vyas, Morwani, Zhao, Shapira, Brandfonbrener, Janson, Kakade, *SOAP: Improving and stabilizing Shampoo using Adam*,
    arXiv:2409.11321 (2024), algorithm 3. Here the first moment is kept in the eigenbasis and turned with it.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the parameters from their gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                    self._update(parameter, parameter.grad, group["lr"])

    def _update(self, parameter: Tensor, gradient: Tensor, lr: float) -> None:
        state = self.state[parameter]
        if not state:
            state |= _start(gradient)
            if "left" in state:
                return  # in its own eigenbasis a gradient is diagonal: the rest of an update were of rounding errors
        rotated = "left" in state
        state["step"] += 1
        step = state["step"].item()
        if rotated:
            state["left"].lerp_(gradient @ gradient.T, 1.0 - DECAY)
            state["right"].lerp_(gradient.T @ gradient, 1.0 - DECAY)
            if step % REFRESH == 0:
                _refresh(state)
            gradient = state["left_basis"].T @ gradient @ state["right_basis"]
        state["mean"].lerp_(gradient, 1.0 - DECAY)
        state["square"].lerp_(gradient.square(), 1.0 - DECAY)
        bias = 1.0 - DECAY**step
        update = state["mean"] / (state["square"].sqrt() + TINY)
        if rotated:
            update = state["left_basis"] @ update @ state["right_basis"].T
        parameter.add_(update, alpha=-lr * bias**-0.5)


def _start(gradient: Tensor) -> dict[str, Tensor]:
    state = {
        "step": torch.zeros((), device="cpu"),
        "mean": torch.zeros_like(gradient),
        "square": torch.zeros_like(gradient),
    }
    if min(gradient.shape) > 1 and gradient.ndim == 2:
        for side, moment in (("left", gradient @ gradient.T), ("right", gradient.T @ gradient)):
            state[side] = moment
            # Largest first, the order in which power iterations keep them.
            state[f"{side}_basis"] = torch.linalg.eigh(moment).eigenvectors.flip(1).contiguous()
    return state


def _refresh(state: dict[str, Tensor]) -> None:
    """One power iteration of both bases, and the first moment in the new ones."""
    turned = state["mean"]
    for side in ("left", "right"):
        old = state[f"{side}_basis"]
        new = torch.linalg.qr(state[side] @ old).Q
        turned = (new.T @ old @ turned).T
        state[f"{side}_basis"] = new.contiguous()
    state["mean"] = turned.contiguous()
