"""Predictions for one system, and from those of several members their mean and spread."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.inference.evaluator import Results
from schnet_ase.uncertainty.calibration import Calibration


class Spread(NamedTuple):
    """What the M members of an ensemble say about N atoms beside their mean; see `SchNetEnsembleCalculator`."""

    energy_std: float
    """Standard deviation over the members (``ddof=1``), eV."""
    energies_std: Floats
    """(N,) eV."""
    forces_std: Floats
    """(N, 3) eV/Å."""
    stress_std: Floats | None
    """(6,) eV/Å³ in Voigt order; None if the cell has no volume."""
    energy_ensemble: Floats
    """(M,) energy of each member, eV."""
    forces_ensemble: Floats
    """(M, N, 3) forces of each member, eV/Å."""
    stress_ensemble: Floats | None
    """(M, 6) stress of each member, eV/Å³ in Voigt order; None if the cell has no volume."""
    forces_deviation: Floats
    """(N,) rotation-invariant spread of each atom's force, eV/Å."""
    energy_uncertainty: float | None
    """Calibrated half-width of the energy, eV; None without a calibration."""
    forces_uncertainty: Floats | None
    """(N,) calibrated half-widths of the forces, eV/Å; None without a calibration."""


class Disagreement(NamedTuple):
    """The part of a `Spread` that a monitor needs."""

    energy_std: float
    """eV."""
    forces_deviation: Floats
    """(N,) eV/Å."""


class Prediction(NamedTuple):
    """Predictions for one system of N atoms; float64 whatever the dtype of the model."""

    energy: float
    """eV; of an ensemble the mean over the members, as all that follows."""
    energies: Floats
    """(N,) energy of each atom, eV."""
    forces: Floats
    """(N, 3) eV/Å."""
    stress: Floats | None
    """(6,) eV/Å³ in Voigt order xx yy zz yz xz xy; None if the cell has no volume."""
    spread: Spread | None
    """Spread over the members; None for one model."""


def of_one(results: Results) -> Prediction:
    """Return the prediction of one model."""
    return Prediction(float(results.energy), results.energies, results.forces, results.stress, None)


def of_members(results: Results, numbers: Integers, calibration: Calibration | None) -> Prediction:
    """Return mean and spread of the results of at least two members.

    Parameters
    ----------
    results
        Results with the M members in front.
    numbers
        (N,) atomic numbers.
    calibration
        Calibration for the half-widths; None: there are none.
    """
    energy, energies, forces, stress = results
    members, n_atoms = energies.shape
    columns = [energy[:, None], energies, forces.reshape(members, -1)]
    if stress is not None:
        columns.append(stress)
    # All quantities at once: for a small molecule, one call each would cost more than everything else in Python.
    mean, std = _mean_and_std(np.concatenate(columns, axis=1))
    of_energies, of_forces = slice(1, 1 + n_atoms), slice(1 + n_atoms, 1 + 4 * n_atoms)
    energy_std, forces_std = float(std[0]), std[of_forces].reshape(-1, 3)
    deviation = _lengths(forces_std)
    energy_uncertainty = forces_uncertainty = None
    if calibration is not None and calibration.energy is not None:
        energy_uncertainty = float(calibration.energy.half_width(energy_std, calibration.coverage))
    if calibration is not None and calibration.forces is not None:
        forces_uncertainty = calibration.forces_half_width(deviation, numbers, calibration.coverage)
    spread = Spread(
        energy_std,
        std[of_energies],
        forces_std,
        None if stress is None else std[-6:],
        energy,
        forces,
        stress,
        deviation,
        energy_uncertainty,
        forces_uncertainty,
    )
    return Prediction(
        float(mean[0]),
        mean[of_energies],
        mean[of_forces].reshape(-1, 3),
        None if stress is None else mean[-6:],
        spread,
    )


def disagreement_of(results: Results) -> Disagreement:
    """Return the disagreement of at least two members, which stand in front of their results."""
    forces = results.forces.reshape(len(results.forces), -1)
    _, std = _mean_and_std(np.concatenate([results.energy[:, None], forces], axis=1))
    return Disagreement(float(std[0]), _lengths(std[1:].reshape(-1, 3)))


def _lengths(vectors: Floats) -> Floats:
    """Return the lengths (N,) of vectors (N, 3)."""
    lengths: Floats = np.sqrt(np.add.reduce(vectors * vectors, axis=1))
    return lengths


def _mean_and_std(values: Floats) -> tuple[Floats, Floats]:
    """Return mean and standard deviation (``ddof=1``) over members, (M, K) to (K,) each; faster than NumPy's if few."""
    mean = np.add.reduce(values, axis=0) / len(values)
    deviations = values - mean
    return mean, np.sqrt(np.add.reduce(deviations * deviations, axis=0) / (len(values) - 1))
