"""What an ensemble said of labelled frames: its spread, and the error of its mean."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.uncertainty.calibration import forces_deviation


class EnsembleErrors(NamedTuple):
    """What M members said of B labelled frames with A atoms in all.

    An error is NaN where a frame has no such label, and None where no frame has one.
    """

    n_members: int
    n_atoms: Integers
    """(B,)."""
    numbers: Integers
    """(A,) atomic numbers, the frames one after the other."""
    energy_std: Floats
    """(B,) eV, over members, ``ddof=1``."""
    forces_std: Floats
    """(A, 3) eV/Å, the same."""
    deviation: Floats
    """(A,) eV/Å, `forces_deviation`."""
    energy_error: Floats | None
    """(B,) eV, mean over members less label; or what another network that they look after says, less label."""
    force_errors: Floats | None
    """(A, 3) eV/Å, the same."""

    @property
    def labelled_energies(self) -> NDArray[np.bool_]:
        """(B,) whether the frame has an energy."""
        return _there(self.energy_error, len(self.n_atoms))

    @property
    def labelled_forces(self) -> NDArray[np.bool_]:
        """(A,) whether the atom has a force that says anything: that on an only atom is zero for every network."""
        errors = None if self.force_errors is None else self.force_errors.sum(axis=1)
        several: NDArray[np.bool_] = np.repeat(self.n_atoms > 1, self.n_atoms)
        return _there(errors, len(self.numbers)) & several

    @property
    def largest_deviation(self) -> Floats:
        """(B,) eV/Å, the largest of each frame."""
        starts = np.cumsum(self.n_atoms) - self.n_atoms
        return np.maximum.reduceat(self.deviation, starts)

    @property
    def force_error(self) -> Floats | None:
        """(A,) eV/Å, length of each atom's error."""
        return None if self.force_errors is None else np.linalg.norm(self.force_errors, axis=1)


def _there(errors: Floats | None, length: int) -> NDArray[np.bool_]:
    return np.zeros(length, dtype=bool) if errors is None else ~np.isnan(errors)


def ensemble_errors(
    n_atoms: Integers,
    numbers: Integers,
    energy: Floats,
    reference_energy: Floats | None,
    forces: Floats,
    reference_forces: Floats | None,
) -> EnsembleErrors:
    """Spread and error of the mean from each member's predictions.

    Parameters
    ----------
    n_atoms
        (B,) atoms of each frame.
    numbers
        (A,) their atomic numbers, the frames one after the other.
    energy, reference_energy
        (M, B) and (B,) eV; the reference is NaN where a frame has none, and None where no frame has one.
    forces, reference_forces
        (M, A, 3) and (A, 3) eV/Å, in the order of `numbers`; the same.
    """
    return EnsembleErrors(
        len(energy),
        n_atoms,
        numbers,
        energy.std(axis=0, ddof=1),
        forces.std(axis=0, ddof=1),
        forces_deviation(forces),
        None if reference_energy is None else energy.mean(axis=0) - reference_energy,
        None if reference_forces is None else forces.mean(axis=0) - reference_forces,
    )
