"""Scale of the network's output and reference energies per element, fitted to the training set."""

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
"""Learning rate of trained weights whose forces are entirely wrong for the new data."""
LEAST, FRAMES_LOOKED_AT = 1e-3, 200
FRAMES_REFITTED = 2000
"""Number of frames to which reference energies are refitted, if those determine as many of them as all frames do."""


class Shift(NamedTuple):
    """Result of refitting the reference energies."""

    changes: dict[int, float]
    """Changes of the reference energies, eV by atomic number."""
    before: float
    """Mean absolute error of the frames' energies with the old references, eV."""
    after: float
    """Mean absolute error of the frames' energies with the new references, eV."""

    def describe(self) -> str:
        """Describe the refit in one line."""
        each = ", ".join(f"{chemical_symbols[z]} {change:+.4f}" for z, change in self.changes.items())
        return (
            f"reference energies were refitted to the data, {each} eV per atom: the mean absolute error of the initial "
            f"weights' energies was {self.before:.4g} eV and is now {self.after:.4g} eV; their forces are unchanged"
        )


def is_isolated_atom(frame: Frame) -> bool:
    """Return whether a frame is a single isolated atom, as opposed to a primitive cell of a crystal with one atom."""
    named = frame.config_type.lower() == "isolatedatom"
    return len(frame.geometry.numbers) == 1 and (named or not frame.geometry.pbc.any())


def known_references(given: Mapping[str, float], frames: Iterable[Frame]) -> dict[int, float]:
    """Return the reference energies, eV by atomic number, that need no fit.

    Parameters
    ----------
    given
        Energies in eV by chemical symbol, which take precedence.
    frames
        Frames, of which those of isolated atoms give further energies. If an element has several, the lowest is used,
        which is that of the ground state.
    """
    known: dict[int, float] = {}
    for frame in frames:
        if frame.energy is not None and is_isolated_atom(frame):
            z = int(frame.geometry.numbers[0])
            known[z] = min(frame.energy, known.get(z, np.inf))
    return known | {atomic_numbers[symbol]: energy for symbol, energy in given.items()}


def fit_normalization(model: SchNet, frames: Sequence[Frame], known: Mapping[int, float] | None = None) -> None:
    """Set the `scale`, `reference` and `elements` of a model with random weights from labelled frames.

    The references are the least-squares solution of ``E = Σ_i e(z_i)`` over the compositions. If all frames have the
    same composition, the solution is not unique, and every element gets the mean energy per atom. The scale is the
    standard deviation of the residual over frames, divided by the square root of the number of atoms: the spread of one
    atom's energy if atoms were independent. Without energies, the scale is the root mean square of the force components
    times 0.1 Å.

    Parameters
    ----------
    model
        Model, which is changed in place.
    frames
        Training frames.
    known
        References that are not fitted, eV by atomic number. The remaining energy per atom, which is that of the bonds,
        is added to the last bias of the network, so that training still starts at the mean energy.

    Raises
    ------
    DataError
        The frames have an element for which the model has no embedding.
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
    """Refit the `reference` of a trained model to the energies of other frames; its forces do not change.

    The difference between the labels and the model's energies, such as that between the energy zeros of two codes, is
    fitted by least squares over the compositions. If the solution is not unique, as for a single molecule, the one with
    the smallest changes (minimum norm) is used. The scale is kept, because changing it would change the forces.

    Parameters
    ----------
    model
        Model in evaluation mode, which is changed in place.
    frames
        Labelled frames; if none has an energy, nothing is changed. Of many, every k-th is used.
    examples
        The same frames as batches, on the model's device.
    known
        References, eV by atomic number, from which the fit starts instead of the model's. The network's output belongs
        to the references that it was trained with, so the fit keeps these values only where the energies do not
        determine others.

    Returns
    -------
    Shift or None
        The changes, and the error of the energies before and after; None if no frame has an energy.
    """
    labelled = [k for k, frame in enumerate(frames) if frame.energy is not None]
    if not labelled:
        return None
    elements = list(model.elements or ())
    old = model.reference[elements].cpu().numpy()
    base = np.array([(known or {}).get(z, e) for z, e in zip(elements, old, strict=True)])
    every = -(-len(labelled) // FRAMES_REFITTED)
    counts = _counts(model, [frames[k] for k in labelled])
    if np.linalg.matrix_rank(counts[::every]) == np.linalg.matrix_rank(counts):
        labelled, counts = labelled[::every], counts[::every]
    energies = np.array([frames[k].energy for k in labelled])
    off = energies - _energies(model, [examples[k] for k in labelled])
    change = base - old + np.linalg.lstsq(counts, off - counts @ (base - old), rcond=None)[0]
    reference = model.reference.clone()
    reference[elements] += torch.from_numpy(change).to(reference)
    model.reference.copy_(reference)
    return Shift(dict(zip(elements, change.tolist(), strict=True)), _mean(off), _mean(off - counts @ change))


def fine_tuning_rate(model: SchNet, frames: Sequence[Frame], examples: Sequence[Batch]) -> float:
    """Return the learning rate for trained weights.

    It is `FINE_TUNING_RATE` times the relative error of the network's forces, which counts as 1 if it is larger: a
    network that is right to a percent needs to change by about a percent. The step of the optimizer has the size of the
    learning rate whatever the gradient, and large steps fit a few frames at the expense of all others
    (docs/fine-tuning.md).

    Parameters
    ----------
    model
        Model in evaluation mode.
    frames, examples
        Training frames, and the same frames as batches; without forces, the relative error counts as 1.
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
    """Set a model's `elements` to those of its training frames.

    Raises
    ------
    DataError
        The frames have an element for which the model has no embedding.
    """
    model.elements = elements_of(frames)
    last = model.elements[-1]
    if last >= model.config.max_z:
        raise DataError(
            f"the frames contain {chemical_symbols[last]}, element {last}; set model.max_z, {model.config.max_z}, "
            "above that"
        )


def _counts(model: SchNet, frames: Sequence[Frame]) -> Floats:
    """Return the number of atoms of each of the model's elements in each frame."""
    elements = model.elements or ()
    return np.array([[(f.geometry.numbers == z).sum() for z in elements] for f in frames], dtype=float)


@torch.no_grad()
def _energies(model: SchNet, examples: Sequence[Batch]) -> Floats:
    """Return the energies that the model predicts, eV."""
    return np.concatenate([p.energy.detach().cpu().numpy() for p in _predictions(model, examples, forces=False)])


def _predictions(model: SchNet, examples: Sequence[Batch], forces: bool = True) -> Iterator[Prediction]:
    device = model.scale.device
    for k in range(0, len(examples), AT_ONCE):
        yield predict(model, batch_to(collate(examples[k : k + AT_ONCE]), device).graph, gradients=forces)


def _mean(errors: Floats) -> float:
    return float(np.abs(errors).mean())
