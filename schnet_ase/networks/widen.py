"""The function of a trained network in a wider one, which then learns on from there."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from schnet_ase.networks.config import SchNetConfig
from schnet_ase.networks.schnet import SchNet


def fits(narrow: SchNetConfig, wide: SchNetConfig) -> bool:
    """Whether `wide` differs from `narrow` by more features alone, if at all; a norm over features admits none."""
    widened = replace(narrow, n_features=wide.n_features, readout_features=wide.readout_features)
    wider = wide.n_features >= narrow.n_features and wide.readout_features >= narrow.readout_features
    return narrow == wide or (widened == wide and wider and wide.norm is None)


@torch.no_grad()
def inherit(wide: SchNet, narrow: SchNet) -> None:
    """Make `wide` the same function of the atoms as `narrow`, whose configuration `fits`.

    The features of `narrow` come first and are computed from each other alone, as they were: weights from new features
    to old ones are zero. New features keep the random weights that `wide` has, from all features, so that every zero
    has a gradient. The idea is Net2Net's [1]_; its copies of old features would be alike and so learn alike.

    Parameters
    ----------
    wide
        Keeps its weights to new features; all others, and its buffers, are overwritten.
    narrow
        Is left as it is.

    References
    ----------
    .. [1] Chen, Goodfellow, Shlens, *Net2Net: Accelerating learning via knowledge transfer*, ICLR (2016).
    """
    wide.scale.copy_(narrow.scale)
    wide.reference.copy_(narrow.reference)
    for ours, theirs in zip(wide.modules(), narrow.modules(), strict=True):
        for (name, new), old in zip(
            ours.named_parameters(recurse=False), theirs.parameters(recurse=False), strict=True
        ):
            if isinstance(ours, nn.Linear) and name == "weight":
                new[: old.shape[0], old.shape[1] :] = 0
            new[tuple(slice(size) for size in old.shape)] = old
