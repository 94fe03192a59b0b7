"""The scale of the network's output and the per-element reference energies, fitted on the training set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols

from schnet_ase.data import Frame
from schnet_ase.data.batches import Batch, batch_to, collate
from schnet_ase.data.frames import elements_of
from schnet_ase.errors import DataError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.inference.forces import Prediction, predict
from schnet_ase.networks import SchNet

AT_ONCE = 32  # frames predicted together
FINE_TUNING_RATE = 1e-3
"""Learning rate of trained weights for data that they know nothing of."""
LEAST, FRAMES_LOOKED_AT = 1e-3, 200


class Shift(NamedTuple):
    """What a refit of the references changed."""

    changes: dict[int, float]
    """Of the reference energies, eV by atomic number."""
    before: float
    """Mean absolute error of the energies of the frames with the old references, eV."""
    after: float
    """The same with the new ones."""

    def describe(self) -> str:
        """In a line."""
        each = ", ".join(f"{chemical_symbols[z]} {change:+.4f}" for z, change in self.changes.items())
        return (
            f"reference energies were refitted to the data, {each} eV an atom: the start's energies were off by "
            f"{self.before:.4g} eV on average, now by {self.after:.4g} eV; its forces are as they were"
        )


def is_isolated_atom(frame: Frame) -> bool:
    """Whether a frame is one atom by itself. A primitive cell of a crystal has one atom too, but is periodic."""
    named = frame.config_type.lower() == "isolatedatom"
    return len(frame.geometry.numbers) == 1 and (named or not frame.geometry.pbc.any())


def known_references(given: Mapping[str, float], frames: Iterable[Frame]) -> dict[int, float]:
    """Reference energies, eV by atomic number, that need no fit.

    Parameters
    ----------
    given
        By chemical symbol; these come first.
    frames
        Those of isolated atoms give the others. Where an element has several, the lowest counts: its ground state.
    """
    known: dict[int, float] = {}
    for frame in frames:
        if frame.energy is not None and is_isolated_atom(frame):
            z = int(frame.geometry.numbers[0])
            known[z] = min(frame.energy, known.get(z, np.inf))
    return known | {atomic_numbers[symbol]: energy for symbol, energy in given.items()}


def fit_normalization(model: SchNet, frames: Sequence[Frame], known: Mapping[int, float] | None = None) -> None:
    """Set the `scale`, `reference` and `elements` of a model with random weights from labelled frames.

    The references are the least-squares solution of ``E = Σ_i e(z_i)`` over the compositions. Where all frames have one
    composition it is not unique, and every element gets the mean energy per atom. The scale is the standard deviation
    over frames of what is left, per square root of the number of atoms: the spread of one atom's energy if atoms were
    independent. Without energies, it is the root mean square of the force components times 0.1 Å.

    Parameters
    ----------
    model
        Is changed in place.
    frames
        To train on.
    known
        References that are not fitted, eV by atomic number. The energy per atom that they leave, which is that of the
        bonds, goes into the last bias of the network, so that training starts at the mean energy all the same.

    Raises
    ------
    DataError
        An element for which the model has no embedding.
    """
    set_elements(model, frames)
    known = known or {}
    labelled = [frame for frame in frames if frame.energy is not None]
    reference = torch.zeros(model.config.max_z, dtype=torch.float64)
    bias = 0.0
    if not labelled:
        sums = np.array([(np.square(f.forces).sum(), f.forces.size) for f in frames if f.forces is not None])
        scale = 0.1 * np.sqrt(sums[:, 0].sum() / sums[:, 1].sum()) if len(sums) else 1.0  # stress alone
    else:
        energies, counts = np.array([frame.energy for frame in labelled]), _counts(model, labelled)
        fixed = np.array([z in known for z in model.elements or ()])
        values = np.array([known.get(z, 0.0) for z in model.elements or ()])
        rest = energies - counts @ values
        if not fixed.any() and (counts == counts[0]).all():
            values[:] = energies.mean() / counts[0].sum()
        elif not fixed.all():
            values[~fixed] = np.linalg.lstsq(counts[:, ~fixed], rest, rcond=None)[0]
        n_atoms = counts.sum(axis=1)
        residual = energies - counts @ values
        if fixed.any():
            bias = float(residual.sum() / n_atoms.sum())
        scale = ((residual - bias * n_atoms) / np.sqrt(n_atoms)).std()
        reference[list(model.elements or ())] = torch.from_numpy(values)
    model.scale.copy_(torch.as_tensor(scale if scale > 0.0 else 1.0))
    model.reference.copy_(reference)
    with torch.no_grad():
        model.readout2.bias.add_(bias / model.scale.item())


def shift_references(
    model: SchNet, frames: Sequence[Frame], examples: Sequence[Batch], known: Mapping[int, float] | None = None
) -> Shift | None:
    """Refit the `reference` of a trained model to the energies of other frames; its forces stay what they are.

    What is fitted, by least squares over the compositions, is what the model's own energies leave of the labels: the
    difference between two codes' zeros of energy. Where it is not unique, as for one molecule, the references change by
    as little as can be (the minimum norm). The scale stays: another one would be another force.

    Parameters
    ----------
    model
        Is changed in place; in evaluation mode.
    frames
        Labelled; without any energy, nothing is changed.
    examples
        The same as batches, where the model is.
    known
        References to start the fit from in place of the model's, eV by atomic number. The model's energies belong to
        the references it was trained with, so these stay only where the energies say nothing else.

    Returns
    -------
    Shift or None
        How far the energies were off, and how far they are now.
    """
    labelled = [k for k, frame in enumerate(frames) if frame.energy is not None]
    if not labelled:
        return None
    elements = list(model.elements or ())
    own = [frames[k] for k in labelled]
    old = model.reference[elements].cpu().numpy()
    base = np.array([(known or {}).get(z, e) for z, e in zip(elements, old, strict=True)])
    counts = _counts(model, own)
    off = np.array([frame.energy for frame in own]) - _energies(model, [examples[k] for k in labelled])
    change = base - old + np.linalg.lstsq(counts, off - counts @ (base - old), rcond=None)[0]
    reference = model.reference.clone()
    reference[elements] += torch.from_numpy(change).to(reference)
    model.reference.copy_(reference)
    return Shift(dict(zip(elements, change.tolist(), strict=True)), _mean(off), _mean(off - counts @ change))


def fine_tuning_rate(model: SchNet, frames: Sequence[Frame], examples: Sequence[Batch]) -> float:
    """The learning rate for trained weights: `FINE_TUNING_RATE` times the relative error of their forces, at most 1.

    A network that is right to a percent has a percent to learn. Steps of the optimizer have the size of the rate
    whatever the gradient, and larger ones fit a few frames at the price of all others (docs/fine-tuning.md).

    Parameters
    ----------
    model
        In evaluation mode.
    frames, examples
        To train on, and the same as batches; where none has forces, the error counts as 1.
    """
    chosen = [k for k, frame in enumerate(frames) if frame.forces is not None]
    chosen = chosen[:: 1 + len(chosen) // FRAMES_LOOKED_AT]
    labels = [frame.forces for frame in (frames[k] for k in chosen) if frame.forces is not None]
    if not labels:
        return FINE_TUNING_RATE
    found = [p.forces.cpu().numpy() for p in _predictions(model, [examples[k] for k in chosen]) if p.forces is not None]
    known = np.concatenate(labels)
    error, size = (float(np.square(x).sum()) for x in (np.concatenate(found) - known, known))
    relative = (error / size) ** 0.5 if size > 0.0 else 1.0
    return FINE_TUNING_RATE * min(max(relative, LEAST), 1.0)


def set_elements(model: SchNet, frames: Iterable[Frame]) -> None:
    """Set a model's `elements` to those of the frames that it is to be trained on.

    Raises
    ------
    DataError
        An element for which the model has no embedding.
    """
    model.elements = elements_of(frames)
    last = model.elements[-1]
    if last >= model.config.max_z:
        raise DataError(
            f"the frames hold {chemical_symbols[last]}, element {last}; set model.max_z, {model.config.max_z}, above "
            "that"
        )


def _counts(model: SchNet, frames: Sequence[Frame]) -> Floats:
    """Atoms of each of the model's elements in each frame."""
    elements = model.elements or ()
    return np.array([[(f.geometry.numbers == z).sum() for z in elements] for f in frames], dtype=float)


def _energies(model: SchNet, examples: Sequence[Batch]) -> Floats:
    """What a model says, eV."""
    return np.concatenate([p.energy.detach().cpu().numpy() for p in _predictions(model, examples, forces=False)])


def _predictions(model: SchNet, examples: Sequence[Batch], forces: bool = True) -> Iterator[Prediction]:
    device = model.scale.device
    for k in range(0, len(examples), AT_ONCE):
        yield predict(model, batch_to(collate(examples[k : k + AT_ONCE]), device).graph, gradients=forces)


def _mean(errors: Floats) -> float:
    return float(np.abs(errors).mean())
