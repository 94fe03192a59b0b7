"""Predictions for many labelled frames, in batches, and their errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from ase.data import chemical_symbols
from ase.stress import voigt_6_to_full_3x3_stress

from schnet_ase.data import Dataset, Frame
from schnet_ase.data.batches import Batch, batch_to, collate, make_examples
from schnet_ase.data.labels.checks import check_frames
from schnet_ase.data.reduced import contribution
from schnet_ase.errors import DataError, StructureError
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.inference.device import resolve_device
from schnet_ase.inference.forces import EnergyModel, predict
from schnet_ase.networks import SchNet, StackedSchNet
from schnet_ase.priors import Contribution, fixed_terms
from schnet_ase.uncertainty.errors import EnsembleErrors, ensemble_errors
from schnet_ase.uncertainty.metrics import Errors, compute_errors

ANOTHER_ZERO, MOSTLY_ZERO = 1.0, 10.0
"""Least difference between two zeros of energy, eV per atom, and between the errors with it and without."""


class Evaluation(NamedTuple):
    """Predictions and labels of B frames with A atoms in total.

    Predictions of M stacked models have a leading dimension M. Labels are NaN for a frame without them, and None if no
    frame has them.
    """

    n_atoms: Integers
    """(B,) number of atoms of each frame."""
    volume: Floats
    """(B,) volume of the cells in Å³; zero for a frame without a cell."""
    energy: Floats
    """(B,) eV."""
    forces: Floats
    """(A, 3) eV/Å, with the frames concatenated."""
    stress: Floats
    """(B, 6) eV/Å³ in ASE's order and sign; NaN where the cell has no volume."""
    reference_energy: Floats | None
    """(B,) eV, labels."""
    reference_forces: Floats | None
    """(A, 3) eV/Å, labels."""
    reference_stress: Floats | None
    """(B, 6) eV/Å³, labels."""
    numbers: Integers
    """(A,) atomic numbers."""
    weight: Floats
    """(B,) weight of each frame in a loss."""

    def errors(self) -> Errors:
        """Return the errors of one model."""
        return compute_errors(
            self.n_atoms,
            self.energy,
            self.reference_energy,
            self.forces,
            self.reference_forces,
            self.stress,
            self.reference_stress,
        )

    def ensemble_errors(self, driver: Evaluation | None = None) -> EnsembleErrors:
        """Return spread and errors of an evaluation of several models.

        The errors are those of the mean or, if given, those of `driver`: the evaluation, on the same frames, of another
        network that moves the atoms while the ensemble monitors it, such as the ensemble's student.
        """
        errors = ensemble_errors(
            self.n_atoms, self.numbers, self.energy, self.reference_energy, self.forces, self.reference_forces
        )
        if driver is None:
            return errors
        return errors._replace(
            energy_error=None if self.reference_energy is None else driver.energy - self.reference_energy,
            force_errors=None if self.reference_forces is None else driver.forces - self.reference_forces,
        )

    def member(self, m: int) -> Evaluation:
        """Return the evaluation of member `m`."""
        return self._replace(energy=self.energy[m], forces=self.forces[m], stress=self.stress[m])

    def mean(self) -> Evaluation:
        """Return the evaluation of the ensemble mean."""
        return self._replace(
            energy=self.energy.mean(axis=0), forces=self.forces.mean(axis=0), stress=self.stress.mean(axis=0)
        )

    def plus(self, parts: Sequence[Contribution]) -> Evaluation:
        """Return a copy with one contribution per frame added to the predictions."""
        virials = np.array([part.virial for part in parts])
        return self._replace(
            energy=self.energy + np.array([part.energies.sum() for part in parts]),
            forces=self.forces + np.concatenate([part.forces for part in parts]),
            stress=self.stress + _stress(virials, self.volume),
        )

    def virial(self, stress: Floats) -> Floats:
        """Return the virials (B, 3, 3) in eV: volume times `stress`, which is (B, 6)."""
        matrix: Floats = voigt_6_to_full_3x3_stress(stress)
        return self.volume[:, None, None] * matrix


def evaluate_dataset(
    models: Sequence[SchNet], dataset: Dataset, *, device: str = "cpu", report: Callable[[int], None] = lambda n: None
) -> Evaluation:
    """Predict all frames of a dataset with M models of the same config.

    Parameters
    ----------
    models
        The models.
    dataset
        Labelled frames.
    device
        ``"cpu"`` or ``"cuda"``.
    report
        Callback that receives the number of frames of each finished batch.

    Raises
    ------
    DataError
        A label is not plausible, or no frame has a label; see `check_frames`.
    StructureError
        The frames have an element that the models were not trained on, or the models have different configs.
    """
    frames = dataset.frames
    energies = any(f.energy is not None for f in frames)
    forces = any(f.forces is not None for f in frames)
    stress = any(f.stress is not None for f in frames)
    if not energies and not forces and not stress:
        raise DataError(
            f"{dataset.source}: no energies, forces or stresses; expected at least one of them; the file holds "
            f"{', '.join(dataset.keys) or 'nothing else'}"
        )
    check_frames(frames, dataset.source, energies=energies, forces=forces, stress=stress, keys=dataset.keys)
    ensemble = StackedSchNet(models).to(resolve_device(device), models[0].dtype)
    strange = set(dataset.elements) - set(ensemble.elements or dataset.elements)
    if strange:
        symbols = ", ".join(chemical_symbols[z] for z in sorted(strange))
        raise StructureError(f"{dataset.source}: the model was not trained on {symbols}; use another model")
    return evaluate_frames(ensemble, frames, range(len(frames)), device=device, report=report)


def evaluate_frames(
    model: SchNet | StackedSchNet,
    frames: Sequence[Frame],
    indices: Sequence[int],
    *,
    device: str = "cpu",
    report: Callable[[int], None] = lambda n: None,
) -> Evaluation:
    """Predict the frames with these indices, including the fixed energy terms; see `evaluate`.

    Raises
    ------
    DataError, SchNetError
        A fixed term cannot be evaluated.
    """
    cutoff, terms = model.config.pair_cutoff, fixed_terms(model.config)
    parts = [contribution(terms, frames, i, cutoff) for i in indices] if terms else []
    result = evaluate(model, make_examples(frames, indices, cutoff), device=device, report=report)
    return result.plus(parts) if terms else result


def evaluate(
    model: EnergyModel,
    examples: Sequence[Batch],
    batch_size: int = 32,
    device: str = "cpu",
    report: Callable[[int], None] = lambda n: None,
) -> Evaluation:
    """Predict every example with the network alone; `evaluate_frames` adds the fixed energy terms.

    Parameters
    ----------
    model
        One `SchNet`, or several stacked ones.
    examples
        Frames as batches; the result has the same order.
    batch_size
        Number of examples computed together; it affects only speed and memory.
    device
        Device of the model.
    report
        Callback that receives the number of examples of each finished batch.
    """
    parts = []
    for start in range(0, len(examples), batch_size):
        batch = collate(examples[start : start + batch_size])
        prediction = predict(model, batch_to(batch, resolve_device(device)).graph)
        assert prediction.forces is not None
        assert prediction.virial is not None
        volume = torch.linalg.det(batch.graph.cell).abs().numpy()
        parts.append(
            Evaluation(
                batch.n_atoms.numpy().astype(np.int64),
                volume,
                prediction.energy.cpu().numpy(),
                prediction.forces.cpu().numpy(),
                _stress(prediction.virial.cpu().numpy(), volume),
                batch.energy.numpy(),
                batch.forces.numpy(),
                _stress(batch.virial.numpy(), volume),
                batch.graph.numbers.numpy(),
                batch.weight.numpy(),
            )
        )
        report(len(batch.n_atoms))
    return join(parts)


def of_another_zero(evaluation: Evaluation) -> float | None:
    """Return the mean absolute error, eV, of energies that count from another zero than the labels, without that.

    The zero is a reference energy for each element, fitted to the errors by least squares. It is another one if it
    is at least `ANOTHER_ZERO` per atom and the errors are `MOSTLY_ZERO` times as large with it as without.

    Parameters
    ----------
    evaluation
        Evaluation of one model, or of a mean.

    Returns
    -------
    float or None
        None if the zero is the same, or the frames are too few to tell.
    """
    if evaluation.reference_energy is None:
        return None
    frame = np.repeat(np.arange(len(evaluation.n_atoms)), evaluation.n_atoms)
    elements, column = np.unique(evaluation.numbers, return_inverse=True)
    counts = np.zeros((len(evaluation.n_atoms), len(elements)))
    np.add.at(counts, (frame, column), 1.0)
    labelled = ~np.isnan(evaluation.reference_energy)
    counts, off = counts[labelled], (evaluation.energy - evaluation.reference_energy)[labelled]
    zero = counts @ np.linalg.lstsq(counts, off, rcond=None)[0]
    without = float(np.abs(off - zero).mean())
    same = np.abs(off).mean() < MOSTLY_ZERO * without or np.abs(zero / counts.sum(axis=1)).mean() < ANOTHER_ZERO
    return None if same or len(off) < 2 * np.linalg.matrix_rank(counts) else without


def join(parts: Sequence[Evaluation]) -> Evaluation:
    """Concatenate evaluations."""
    return Evaluation(
        np.concatenate([p.n_atoms for p in parts]),
        np.concatenate([p.volume for p in parts]),
        np.concatenate([p.energy for p in parts], axis=-1),
        np.concatenate([p.forces for p in parts], axis=-2),
        np.concatenate([p.stress for p in parts], axis=-2),
        _labels([_all(p.reference_energy, p.energy.shape[-1:]) for p in parts]),
        _labels([_all(p.reference_forces, p.forces.shape[-2:]) for p in parts]),
        _labels([_all(p.reference_stress, p.stress.shape[-2:]) for p in parts]),
        np.concatenate([p.numbers for p in parts]),
        np.concatenate([p.weight for p in parts]),
    )


def _all(labels: Floats | None, shape: tuple[int, ...]) -> Floats:
    return np.full(shape, np.nan) if labels is None else labels


def _labels(parts: Sequence[Floats]) -> Floats | None:
    labels = np.concatenate(parts)
    return None if np.isnan(labels).all() else labels


def _stress(virial: Floats, volume: Floats) -> Floats:
    """Return stresses (..., B, 6) in ASE's order from virials (..., B, 3, 3)."""
    rows, columns = [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]
    stress: Floats = virial[..., rows, columns] / np.where(volume > 0.0, volume, np.nan)[:, None]
    return stress
