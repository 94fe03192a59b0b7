"""The scale of the network's output and the per-element reference energies, fitted on the training set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase.data import chemical_symbols

from schnet_ase.data import Frame
from schnet_ase.data.frames import elements_of
from schnet_ase.errors import DataError
from schnet_ase.model import SchNet


def fit_normalization(model: SchNet, frames: Sequence[Frame]) -> None:
    """Set a model's `scale`, `reference` and `elements` from labelled frames.

    The references are the least-squares solution of ``E = Σ_i e(z_i)`` over the compositions. Where all frames have one
    composition it is not unique, and every element gets the mean energy per atom. The scale is the standard deviation
    over frames of what is left, per square root of the number of atoms: the spread of one atom's energy if atoms were
    independent. Without energies, it is the root mean square of the force components times 0.1 Å.

    Raises
    ------
    DataError
        An element for which the model has no embedding.
    """
    model.elements = elements_of(frames)
    elements = np.array(model.elements)
    if elements[-1] >= model.config.max_z:
        raise DataError(
            f"the frames hold {chemical_symbols[elements[-1]]}, element {elements[-1]}; set model.max_z, "
            f"{model.config.max_z}, above that"
        )
    labelled = [f for f in frames if f.energy is not None]
    energies = np.array([f.energy for f in labelled])
    reference = np.zeros(model.config.max_z)
    if not labelled:
        sums = np.array([(np.square(f.forces).sum(), f.forces.size) for f in frames if f.forces is not None])
        scale = 0.1 * np.sqrt(sums[:, 0].sum() / sums[:, 1].sum())
    else:
        counts = np.array([[(f.geometry.numbers == z).sum() for z in elements] for f in labelled], dtype=float)
        if (counts == counts[0]).all():
            reference[elements] = energies.mean() / counts[0].sum()
        else:
            reference[elements] = np.linalg.lstsq(counts, energies, rcond=None)[0]
        residual = (energies - counts @ reference[elements]) / np.sqrt(counts.sum(axis=1))
        scale = residual.std()
    model.scale.copy_(torch.as_tensor(scale if scale > 0.0 else 1.0))
    model.reference.copy_(torch.from_numpy(reference))
