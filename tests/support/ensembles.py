"""Simulated ensembles of known truth: members and labels are draws of one Gaussian about the same mean."""

import numpy as np

from schnet_ase.uncertainty.calibration import Calibration
from schnet_ase.uncertainty.errors import EnsembleErrors, ensemble_errors
from schnet_ase.uncertainty.fit import calibrate


def simulate(
    rng: np.random.Generator,
    n_frames: int,
    *,
    n_members: int = 5,
    n_atoms: int = 4,
    scale: float = 1.0,
    shared: float = 0.5,
    own: float = 0.5,
    oxygen: float = 1.0,
) -> EnsembleErrors:
    """Errors of an ensemble whose σ varies.

    Parameters
    ----------
    scale
        Of the truth's σ relative to the members'.
    shared, own
        Standard deviation of ln σ between frames, and between the atoms of one.
    oxygen
        Scale of the truth's σ at oxygen, every other atom, relative to hydrogen's.
    """
    numbers = np.tile(np.resize([1, 8], n_atoms), n_frames)
    frame = rng.normal(0.0, shared, n_frames)
    atom = np.repeat(frame, n_atoms) + rng.normal(0.0, own, n_frames * n_atoms)
    sigma = 0.01 * np.exp(frame), 0.02 * np.exp(atom)[:, None]
    energy = sigma[0] * rng.standard_normal((n_members, n_frames))
    forces = sigma[1] * rng.standard_normal((n_members, n_frames * n_atoms, 3))
    return ensemble_errors(
        np.full(n_frames, n_atoms),
        numbers,
        energy - 4000.0,
        scale * sigma[0] * rng.standard_normal(n_frames) - 4000.0,
        forces,
        np.where(numbers == 8, oxygen, 1.0)[:, None] * scale * sigma[1] * rng.standard_normal((n_frames * n_atoms, 3)),
    )


def calibrated(errors: EnsembleErrors, coverage: float = 0.9) -> Calibration:
    return calibrate(
        errors, coverage=coverage, file="data.xyz", sha256="0", members=tuple(map(str, range(errors.n_members)))
    )
