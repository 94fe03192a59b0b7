"""Start a wider network as the same function as a trained narrower one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from schnet_ase.networks.config import SchNetConfig
from schnet_ase.networks.schnet import SchNet


def fits(narrow: SchNetConfig, wide: SchNetConfig) -> bool:
    """Return whether `wide` has at most more features than `narrow`; with a norm over features, it may not have
    more."""
    widened = replace(narrow, n_features=wide.n_features, readout_features=wide.readout_features)
    wider = wide.n_features >= narrow.n_features and wide.readout_features >= narrow.readout_features
    return narrow == wide or (widened == wide and wider and wide.norm is None)


@torch.no_grad()
def inherit(wide: SchNet, narrow: SchNet) -> None:
    """Make `wide` the same function of the atoms as `narrow`, whose configuration `fits`.

    The features of `narrow` come first and depend only on each other, as before: weights from new features to old ones
    are zero. New features keep the random weights of `wide`, from all features, so that every zero has a gradient. The
    idea is that of Net2Net [1]_, whose copies of old features, however, would be identical and so learn the same.

    Parameters
    ----------
    wide
        Wider network; it keeps its weights to new features, and all others and its buffers are overwritten.
    narrow
        Narrower network, which does not change.

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
