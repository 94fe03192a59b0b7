"""Errors against their definitions, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ase import units

from schnet_ase.uncertainty.metrics import KCAL_PER_MOL, MEV, Errors, compute_errors

# Two frames, of one and of two atoms.
N_ATOMS = np.array([1, 2])
ENERGY, REFERENCE_ENERGY = np.array([-1.0, -5.0]), np.array([-4.0, -1.0])  # differences 3 and -4
FORCES = np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, -3.0]])
REFERENCE_FORCES = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # differences 1, 2, -4, six zeros


def test_small_case_by_hand() -> None:
    errors = compute_errors(N_ATOMS, ENERGY, REFERENCE_ENERGY, FORCES, REFERENCE_FORCES)
    assert errors.n_frames == 2
    assert errors.energy_mae == pytest.approx((3 + 4) / 2, rel=1e-15)
    assert errors.energy_rmse == pytest.approx(math.sqrt((9 + 16) / 2), rel=1e-15)
    assert errors.energy_per_atom_mae == pytest.approx((3 + 4 / 2) / 2, rel=1e-15)
    assert errors.energy_per_atom_rmse == pytest.approx(math.sqrt((9 + 4) / 2), rel=1e-15)
    assert errors.force_mae == pytest.approx((1 + 2 + 4) / 9, rel=1e-15)
    assert errors.force_rmse == pytest.approx(math.sqrt((1 + 4 + 16) / 9), rel=1e-15)


def test_random_case_by_loops() -> None:
    rng = np.random.default_rng(0)
    n_atoms = np.array([3, 1, 5, 2])
    energy, reference_energy = rng.normal(-2e4, 1, (2, 4))
    forces, reference_forces = rng.normal(0, 1, (2, 11, 3))
    errors = compute_errors(n_atoms, energy, reference_energy, forces, reference_forces)
    absolute = squared = per_atom_absolute = per_atom_squared = 0.0
    for n, e, r in zip(n_atoms, energy, reference_energy, strict=True):
        absolute += abs(e - r) / 4
        squared += (e - r) ** 2 / 4
        per_atom_absolute += abs(e - r) / n / 4
        per_atom_squared += ((e - r) / n) ** 2 / 4
    differences = [a - b for a, b in zip(forces.ravel().tolist(), reference_forces.ravel().tolist(), strict=True)]
    assert errors.n_frames == 4
    assert errors.energy_mae == pytest.approx(absolute, rel=1e-12)
    assert errors.energy_rmse == pytest.approx(math.sqrt(squared), rel=1e-12)
    assert errors.energy_per_atom_mae == pytest.approx(per_atom_absolute, rel=1e-12)
    assert errors.energy_per_atom_rmse == pytest.approx(math.sqrt(per_atom_squared), rel=1e-12)
    assert errors.force_mae == pytest.approx(sum(map(abs, differences)) / 33, rel=1e-12)
    assert errors.force_rmse == pytest.approx(math.sqrt(sum(d**2 for d in differences) / 33), rel=1e-12)


def test_perfect_predictions() -> None:
    errors = compute_errors(N_ATOMS, ENERGY, ENERGY, FORCES, FORCES)
    assert errors == Errors(2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, n_energies=2, n_forces=2, n_stresses=0)
    assert len(errors.rows()) == 6, "an error of zero is a number, not a missing one"


def test_small_errors_of_large_energies() -> None:
    # -4e5 kcal/mol as total energy, off by 1e-6 eV: to the spacing of float64 there, 4e-12.
    reference = np.array([-17345.6, -17345.6])
    errors = compute_errors(N_ATOMS, reference + 1e-6, reference, FORCES, FORCES)
    assert errors.energy_mae == pytest.approx(1e-6, abs=4e-12)


def test_no_energies() -> None:
    errors = compute_errors(N_ATOMS, ENERGY, None, FORCES, REFERENCE_FORCES)
    assert errors.energy_mae is errors.energy_rmse is None
    assert errors.energy_per_atom_mae is errors.energy_per_atom_rmse is None
    assert errors.force_mae == pytest.approx(7 / 9, rel=1e-15)
    assert [row[0] for row in errors.rows()] == ["force component MAE", "force component RMSE"]


def test_no_forces() -> None:
    errors = compute_errors(N_ATOMS, ENERGY, REFERENCE_ENERGY, FORCES, None)
    assert errors.force_mae is errors.force_rmse is None
    assert errors.energy_mae == 3.5
    assert len(errors.rows()) == 4
    assert all(name.startswith("energy") for name, *_ in errors.rows())


def test_no_labels() -> None:
    errors = compute_errors(N_ATOMS, ENERGY, None, FORCES, None)
    assert errors == Errors(2, None, None, None, None, None, None, n_energies=0, n_forces=0, n_stresses=0)
    assert errors.rows() == []


def test_numbers_are_plain_floats() -> None:
    # They go into JSON.
    errors = compute_errors(N_ATOMS, ENERGY, REFERENCE_ENERGY, FORCES, REFERENCE_FORCES)
    assert type(errors.n_frames) is int
    assert type(errors.energy_mae) is type(errors.force_rmse) is float


def test_arguments_are_left_alone() -> None:
    arguments = [a.copy() for a in (N_ATOMS, ENERGY, REFERENCE_ENERGY, FORCES, REFERENCE_FORCES)]
    compute_errors(*arguments)
    for now, before in zip(arguments, (N_ATOMS, ENERGY, REFERENCE_ENERGY, FORCES, REFERENCE_FORCES), strict=True):
        np.testing.assert_array_equal(now, before)


def test_units() -> None:
    # ASE's constants are of 2014, others are of 2018: they agree to 2e-8.
    assert pytest.approx(units.mol / units.kcal, rel=5e-8) == KCAL_PER_MOL
    assert MEV == 1000.0


def test_rows_are_in_mev_and_kcal_per_mol() -> None:
    rows = {row.name: row for row in Errors(1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6).rows()}
    assert list(rows) == [
        "energy MAE",
        "energy RMSE",
        "energy per atom MAE",
        "energy per atom RMSE",
        "force component MAE",
        "force component RMSE",
    ]
    for k, (name, row) in enumerate(rows.items(), start=1):
        per = "/Å" if name.startswith("force") else ""
        assert (row.unit, row.other_unit) == (f"meV{per}", f"kcal/mol{per}")
        assert row.value == pytest.approx(100 * k, rel=1e-14)
        assert row.other == pytest.approx(0.1 * k / (units.kcal / units.mol), rel=5e-8)
