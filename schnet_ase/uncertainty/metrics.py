"""Errors of predictions against reference labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import units
from pydantic.dataclasses import dataclass

from schnet_ase.geometry.arrays import Floats, Integers

MEV = 1000.0
KCAL_PER_MOL = 23.060548  # one eV
GPA = 1.0 / units.GPa
"""One eV/Å³."""


class ErrorRow(NamedTuple):
    """One error for a table, in two units."""

    name: str
    value: float
    unit: str
    other: float
    other_unit: str


@dataclass(frozen=True)
class Errors:
    """Mean absolute and root mean square errors over `n_frames` frames; None without such a label."""

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
    stress_mae: float | None = None
    """eV/Å³, over the six components of the stress."""
    stress_rmse: float | None = None
    n_energies: int | None = None
    """Number of frames with an energy; None if the file does not say, and all count."""
    n_forces: int | None = None
    """Number of frames with forces."""
    n_stresses: int | None = None
    """Number of frames with a stress."""

    def rows(self) -> list[ErrorRow]:
        """Return rows for a table: errors in meV and kcal/mol, of forces per Å, and of stresses in meV/Å³ and GPa."""
        found = [
            ("energy MAE", self.energy_mae, "", KCAL_PER_MOL, "kcal/mol"),
            ("energy RMSE", self.energy_rmse, "", KCAL_PER_MOL, "kcal/mol"),
            ("energy per atom MAE", self.energy_per_atom_mae, "", KCAL_PER_MOL, "kcal/mol"),
            ("energy per atom RMSE", self.energy_per_atom_rmse, "", KCAL_PER_MOL, "kcal/mol"),
            ("force component MAE", self.force_mae, "/Å", KCAL_PER_MOL, "kcal/mol/Å"),
            ("force component RMSE", self.force_rmse, "/Å", KCAL_PER_MOL, "kcal/mol/Å"),
            ("stress component MAE", self.stress_mae, "/Å³", GPA, "GPa"),
            ("stress component RMSE", self.stress_rmse, "/Å³", GPA, "GPa"),
        ]
        return [
            ErrorRow(name, MEV * v, f"meV{per}", factor * v, unit)
            for name, v, per, factor, unit in found
            if v is not None
        ]

    def counts(self) -> str:
        """State how many frames there are and, if some lack a label, how many have each."""
        labels = (("energies", self.n_energies), ("forces", self.n_forces), ("stresses", self.n_stresses))
        # A label that no frame has gets no row in the table.
        some = [f"{n} with {label}" for label, n in labels if n and n < self.n_frames]
        return ", ".join([f"{self.n_frames} frames", *some])


def compute_errors(
    n_atoms: Integers,
    energy: Floats,
    reference_energy: Floats | None,
    forces: Floats,
    reference_forces: Floats | None,
    stress: Floats | None = None,
    reference_stress: Floats | None = None,
) -> Errors:
    """Compute errors of B frames with A atoms in total; a reference is NaN if a frame lacks it, None if all lack it.

    Parameters
    ----------
    n_atoms
        (B,) number of atoms of each frame.
    energy, reference_energy
        (B,) eV.
    forces, reference_forces
        (A, 3) eV/Å, one frame after the other.
    stress, reference_stress
        (B, 6) eV/Å³ in ASE's order.
    """
    de = dn = df = ds = None
    n_energies = n_forces = n_stresses = 0
    if reference_energy is not None:
        there = ~np.isnan(reference_energy)
        de, n_energies = (energy - reference_energy)[there], int(there.sum())
        dn = de / n_atoms[there]
    if reference_forces is not None:
        atoms = ~np.isnan(reference_forces[:, 0])
        df = (forces - reference_forces)[atoms]
        n_forces = len(np.unique(np.repeat(np.arange(len(n_atoms)), n_atoms)[atoms]))
    if stress is not None and reference_stress is not None:
        cells = ~np.isnan(reference_stress[:, 0])
        ds, n_stresses = (stress - reference_stress)[cells], int(cells.sum())
    return Errors(
        len(n_atoms),
        _mae(de),
        _rmse(de),
        _mae(dn),
        _rmse(dn),
        _mae(df),
        _rmse(df),
        _mae(ds),
        _rmse(ds),
        n_energies,
        n_forces,
        n_stresses,
    )


def _mae(differences: Floats | None) -> float | None:
    return None if differences is None or not differences.size else float(np.abs(differences).mean())


def _rmse(differences: Floats | None) -> float | None:
    return None if differences is None or not differences.size else float(np.sqrt((differences**2).mean()))
