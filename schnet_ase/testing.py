"""The physics that every calculator of the package satisfies, as one function to check any ASE calculator."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress

from schnet_ase.geometry.arrays import Floats


class Tolerances(NamedTuple):
    """Tolerances for a dtype."""

    gradients: float
    """Tolerance of forces and stress against finite differences, relative to the largest component."""
    invariance: float
    """Tolerance of quantities that symmetry leaves unchanged: energies in eV, forces in eV/Å."""
    step: float
    """Step of the finite differences: Å for forces, strain for stress."""
    floor: float
    """Smallest scale of forces, eV/Å (of stresses a hundredth, eV/Å³), so that no tolerance becomes zero."""


TOLERANCES = {"float64": Tolerances(1e-6, 1e-10, 1e-4, 0.1), "float32": Tolerances(1e-3, 1e-4, 5e-3, 1.0)}


def check_calculator(
    calc: BaseCalculator,
    atoms: Atoms,
    *,
    gradient_tolerance: float | None = None,
    invariance_tolerance: float | None = None,
    seed: int = 0,
) -> None:
    """Check that a calculator's results on given atoms are those of a potential.

    The checks are: forces and stress are derivatives of the energy (the stress if the system is periodic in three
    directions, or if the calculator gives it anyway); the energy does not change under translation, rotation,
    permutation and displacements of atoms by lattice vectors, and the forces transform accordingly; forces sum to zero,
    and per-atom energies to the energy, which equals ``free_energy``; results are float64, have the right shapes, and
    are new at each call.

    Parameters
    ----------
    calc
        The calculator.
    atoms
        Atoms for the evaluation, preferably without symmetry. They are copied, without constraints.
    gradient_tolerance
        Tolerance of forces and stress against finite differences, relative to the largest component (see
        `Tolerances.floor`). Default: 1e-6, or 1e-3 if ``calc.parameters["dtype"]`` is ``"float32"``.
    invariance_tolerance
        Tolerance of quantities that must not change, eV and eV/Å. Default: 1e-10, or 1e-4 in float32.
    seed
        Seed of the random motions.

    Raises
    ------
    AssertionError
        A check failed; the one line states the property, the deviation and the tolerance.
    """
    chosen = TOLERANCES.get(calc.parameters.get("dtype", "float64"), TOLERANCES["float64"])
    gradients = chosen.gradients if gradient_tolerance is None else gradient_tolerance
    invariance = chosen.invariance if invariance_tolerance is None else invariance_tolerance
    atoms = atoms.copy()
    atoms.set_constraint()
    atoms.calc = calc
    _check_results(calc, atoms, invariance)
    _check_symmetries(atoms, invariance, np.random.default_rng(seed))
    forces = atoms.get_forces()
    error = forces - _extrapolated(calculate_numerical_forces, atoms, chosen.step)
    size = max(float(np.abs(forces).max()), chosen.floor)
    _close("forces are not minus the gradient of the energy", error, gradients * size, "eV/Å")
    if "stress" in calc.results:
        stress = atoms.get_stress()
        error = stress - _extrapolated(calculate_numerical_stress, atoms, chosen.step)
        size = max(float(np.abs(stress).max()), 0.01 * chosen.floor)
        _close("stress is not the strain derivative of the energy", error, gradients * size, "eV/Å³")


def _check_results(calc: BaseCalculator, atoms: Atoms, tolerance: float) -> None:
    atoms.get_forces()
    results = dict(calc.results)
    shapes = {"energy": (), "free_energy": (), "energies": (len(atoms),), "forces": (len(atoms), 3)}
    shapes |= {"stress": (6,)} if atoms.pbc.all() or "stress" in results else {}
    for name, shape in shapes.items():
        _true(name in results, f"{name} is missing from the results")
        _true(np.shape(results[name]) == shape, f"{name} has shape {np.shape(results[name])}; expected {shape}")
    for name, value in results.items():
        _true(name in calc.implemented_properties, f"{name} is not among implemented_properties")
        _true(np.asarray(value).dtype == np.float64, f"{name} has dtype {np.asarray(value).dtype}; expected float64")
    _close("free_energy is not the energy", results["free_energy"] - results["energy"], 0.0, "eV")
    _close("energies do not sum to the energy", np.sum(results["energies"]) - results["energy"], tolerance, "eV")
    _close("forces do not sum to zero", results["forces"].sum(axis=0), tolerance, "eV/Å")
    before = {name: np.copy(value) for name, value in results.items()}
    moved = atoms.copy()
    moved.positions[0] += (0.05, -0.03, 0.02)
    moved.calc = calc
    moved.get_forces()
    for name, value in results.items():
        new = not (np.ndim(value) and np.shares_memory(value, calc.results[name]))
        _true(new and np.array_equal(value, before[name], equal_nan=True), f"{name} shares memory with the next call's")


def _check_symmetries(atoms: Atoms, tolerance: float, rng: np.random.Generator) -> None:
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    order = rng.permutation(len(atoms))
    images = rng.integers(-2, 3, size=(len(atoms), 3)) * atoms.pbc
    translated, rotated, permuted, unwrapped = atoms.copy(), atoms.copy(), atoms[order], atoms.copy()
    translated.positions += rng.uniform(-10.0, 10.0, size=3)
    rotated.set_cell(atoms.cell.array @ rotation.T)
    rotated.positions = atoms.positions @ rotation.T
    unwrapped.positions += images @ atoms.cell.array
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    expected = {
        "translation": (translated, forces),
        "rotation": (rotated, forces @ rotation.T),
        "permutation": (permuted, forces[order]),
        "moves by lattice vectors": (unwrapped, forces),
    }
    for motion, (moved, moved_forces) in expected.items():
        moved.calc = atoms.calc
        _close(f"energy changes under {motion}", moved.get_potential_energy() - energy, tolerance, "eV")
        _close(f"forces do not follow {motion}", moved.get_forces() - moved_forces, tolerance, "eV/Å")


def _extrapolated(derivative: Callable[..., Floats], atoms: Atoms, step: float) -> Floats:
    """Combine central differences with steps h and 2h so that the error is of order h⁴ (Richardson)."""
    differences = []
    for eps in (step, 2.0 * step):
        moving = atoms.copy()
        moving.calc = atoms.calc
        differences.append(derivative(moving, eps=eps))
    return (4.0 * differences[0] - differences[1]) / 3.0


def _close(failure: str, difference: Floats | float, tolerance: float, unit: str) -> None:
    off = float(np.max(np.abs(difference)))
    _true(off <= tolerance, f"{failure}: off by {off:.3g} {unit}, tolerance {tolerance:.3g} {unit}")


def _true(condition: bool, failure: str) -> None:
    if not condition:
        raise AssertionError(failure)
