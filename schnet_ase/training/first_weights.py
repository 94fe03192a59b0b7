"""The weights before the first step: random ones, or those of a trained network, and how near a validated one stays."""

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
    """A network that is to be trained."""

    model: SchNet
    rate: float | None = None
    """The learning rate for trained weights where none is given; None: they are random."""
    shift: Shift | None = None
    """Of trained weights: how their reference energies were refitted, if there were energies."""


def first_weights(
    config: SchNetConfig,
    frames: Sequence[Frame],
    examples: Sequence[Batch],
    known: Mapping[int, float],
    initial: Path | None,
    device: torch.device,
) -> FirstWeights:
    """Make a network for some labelled frames.

    Parameters
    ----------
    config
        Its architecture.
    frames, examples
        The frames to train on, and the same as batches of one.
    known
        eV, reference energies by atomic number.
    initial
        Checkpoint whose weights it gets, refitted to the frames, see `shift_references`; None: they are random, see
        `fit_normalization`.
    device
        Where trained weights are refitted.

    Raises
    ------
    TrainingError
        The checkpoint's network is neither that of `config` nor a narrower one, or it has other fixed terms.
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
                f"{initial}: has model.{name} {_named(theirs)}, this configuration {_named(ours)}; its weights have "
                "learned what that leaves of the labels: give the same, or leave out [model], which takes the start's"
            )
    if not fits(start.config, config):
        raise TrainingError(
            f"{initial}: has another architecture; give a run of the same [model], or of a narrower, or leave out "
            "[model], which takes that of the start"
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
    """The network with a `share` of the way from the weights of `start` to those of `trained`.

    On few frames training fits what is theirs alone before it learns anything; a part of its way often gains without
    losing [1]_.

    References
    ----------
    .. [1] Wortsman et al., *Robust fine-tuning of zero-shot models*, CVPR (2022).
    """
    model = copy.deepcopy(start)
    for ours, theirs in zip(model.parameters(), trained.parameters(), strict=True):
        ours.lerp_(theirs, share)
    return model
