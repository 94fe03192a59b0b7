"""Errors of predictions against reference labels."""

from __future__ import annotations

import numpy as np
from pydantic.dataclasses import dataclass

from schnet_ase.neighbors import Floats, Integers

MEV = 1000.0
KCAL_PER_MOL = 23.060548  # one eV


@dataclass(frozen=True)
class Errors:
    """Mean absolute and root mean square errors over `n_frames` frames; None where there is no such label."""

    n_frames: int
    energy_mae: float | None
    """eV, of the total energy."""
    energy_rmse: float | None
    energy_per_atom_mae: float | None
    """eV per atom."""
    energy_per_atom_rmse: float | None
    force_mae: float | None
    """eV/Å, over force components."""
    force_rmse: float | None

    def rows(self) -> list[tuple[str, str, float, float]]:
        """For a table: quantity, unit, value in meV (and meV/Å), value in kcal/mol (and kcal/mol/Å)."""
        named = [
            ("energy MAE", "", self.energy_mae),
            ("energy RMSE", "", self.energy_rmse),
            ("energy per atom MAE", "", self.energy_per_atom_mae),
            ("energy per atom RMSE", "", self.energy_per_atom_rmse),
            ("force component MAE", "/Å", self.force_mae),
            ("force component RMSE", "/Å", self.force_rmse),
        ]
        return [(name, unit, MEV * v, KCAL_PER_MOL * v) for name, unit, v in named if v is not None]


def compute_errors(
    n_atoms: Integers, energy: Floats, reference_energy: Floats | None, forces: Floats, reference_forces: Floats | None
) -> Errors:
    """Errors of B frames with A atoms in all.

    Parameters
    ----------
    n_atoms
        (B,) atoms of each frame.
    energy, reference_energy
        (B,) eV.
    forces, reference_forces
        (A, 3) eV/Å, the frames one after the other.
    """
    de = None if reference_energy is None else energy - reference_energy
    dn = None if de is None else de / n_atoms
    df = None if reference_forces is None else forces - reference_forces
    return Errors(len(n_atoms), _mae(de), _rmse(de), _mae(dn), _rmse(dn), _mae(df), _rmse(df))


def _mae(differences: Floats | None) -> float | None:
    return None if differences is None else float(np.abs(differences).mean())


def _rmse(differences: Floats | None) -> float | None:
    return None if differences is None else float(np.sqrt((differences**2).mean()))
