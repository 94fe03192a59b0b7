"""Initial weights of a training, random or from a trained network, and interpolation towards them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from schnet_ase.data import Frame
from schnet_ase.data.batches import Batch
from schnet_ase.errors import TrainingError
from schnet_ase.networks import SchNet, SchNetConfig
from schnet_ase.networks.config import TERMS
from schnet_ase.networks.widen import fits, inherit
from schnet_ase.registry.checkpoint import load_checkpoint
from schnet_ase.training.normalization import Shift, fine_tuning_rate, fit_normalization, set_elements, shift_references

LEAST_SHARE = 1 / 8


class FirstWeights(NamedTuple):
    """Network before its training."""

    model: SchNet
    rate: float | None = None
    """Default learning rate for trained weights; None: the weights are random."""
    shift: Shift | None = None
    """Change of the reference energies of trained weights; None: random weights, or data without energies."""


def first_weights(
    config: SchNetConfig,
    frames: Sequence[Frame],
    examples: Sequence[Batch],
    known: Mapping[int, float],
    initial: Path | None,
    device: torch.device,
) -> FirstWeights:
    """Make the network that a training starts from.

    Parameters
    ----------
    config
        Architecture of the network.
    frames, examples
        Training frames, and the same frames as batches of one.
    known
        Reference energies in eV by atomic number.
    initial
        Checkpoint of the initial weights, whose reference energies are refitted to the frames, see `shift_references`;
        None: random weights, see `fit_normalization`.
    device
        Device on which trained weights are refitted.

    Raises
    ------
    TrainingError
        The checkpoint's network has neither the architecture of `config` nor a narrower one, or it has other fixed
        energy terms.
    """
    model = SchNet(config)
    if initial is None:
        fit_normalization(model, frames, known)
        return FirstWeights(model)
    start = load_checkpoint(initial)
    set_elements(model, frames)
    for name in TERMS:
        theirs, ours = getattr(start.config, name), getattr(config, name)
        if theirs != ours:
            raise TrainingError(
                f"{initial}: has model.{name} {_named(theirs)}, this configuration {_named(ours)}; its weights were "
                "trained on labels without that term: give the same, or leave out [model] to use that of the checkpoint"
            )
    if not fits(start.config, config):
        raise TrainingError(
            f"{initial}: has another architecture; give a run with the same or a narrower [model], or leave out "
            "[model] to use that of the checkpoint"
        )
    inherit(model, start)
    model.to(device).eval()
    shift = shift_references(model, frames, examples, known)
    rate = fine_tuning_rate(model, frames, examples)
    return FirstWeights(model.train(), rate, shift)


def _named(term: str | None) -> str:
    return "none" if term is None else repr(term)


@torch.no_grad()
def between(start: SchNet, trained: SchNet, share: float) -> SchNet:
    """Return the network whose weights lie a `share` of the way from those of `start` to those of `trained`.

    With few frames, training overfits them early; going only part of the way often improves on both ends [1]_.

    References
    ----------
    .. [1] Wortsman et al., *Robust fine-tuning of zero-shot models*, CVPR (2022).
    """
    model = copy.deepcopy(start)
    for ours, theirs in zip(model.parameters(), trained.parameters(), strict=True):
        ours.lerp_(theirs, share)
    return model
