"""What every calculator of ours has to satisfy, as one function that anybody can call on theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress

from schnet_ase.neighbors import Floats

MIN_FORCE = 0.1  # eV/Å; smaller forces count as this large in the relative tolerance, so that zero is not asked for
MIN_STRESS = 1e-3  # eV/Å³; the same for stress


class Tolerances(NamedTuple):
    """How far a dtype allows a calculator to be off."""

    gradients: float
    """Of forces and stress from finite differences, relative to the largest component."""
    invariance: float
    """Of what symmetry leaves unchanged: energies in eV, forces in eV/Å."""
    step: float
    """Of the finite differences: Å for forces, strain for stress."""


TOLERANCES = {"float64": Tolerances(1e-6, 1e-10, 1e-4), "float32": Tolerances(1e-3, 1e-4, 1e-2)}


def check_calculator(
    calc: BaseCalculator,
    atoms: Atoms,
    *,
    gradient_tolerance: float | None = None,
    invariance_tolerance: float | None = None,
    seed: int = 0,
) -> None:
    """Check that a calculator's results on given atoms are those of a potential.

    Forces and (where the atoms are periodic in all directions) stress are derivatives of the energy by finite
    differences. The energy stays the same under translation, rotation, permutation and moves of single atoms by
    lattice vectors, and the forces follow. Forces sum to zero, per-atom energies to the energy, and ``free_energy``
    is the energy. Results have the right shapes, are float64 and do not change with the next call.

    Parameters
    ----------
    calc
        The calculator.
    atoms
        Any atoms it can be evaluated on, best without symmetry, so that no derivative is zero. They are copied;
        constraints and an own calculator are ignored.
    gradient_tolerance
        For forces and stress against finite differences, relative to the largest component (of which at least
        0.1 eV/Å and 1e-3 eV/Å³). Default: 1e-6; 1e-3 where ``calc.parameters["dtype"]`` is ``"float32"``.
    invariance_tolerance
        For what has to stay the same, eV and eV/Å. Default: 1e-10, float32 1e-4.
    seed
        Of the random motions.

    Raises
    ------
    AssertionError
        One line: which property failed, by how much, and the tolerance.
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
    size = max(float(np.abs(forces).max()), MIN_FORCE)
    numerical = _extrapolated(calculate_numerical_forces, atoms, chosen.step)
    _close("forces are not minus the gradient of the energy", forces - numerical, gradients * size, "eV/Å")
    if atoms.pbc.all():
        stress = atoms.get_stress()
        size = max(float(np.abs(stress).max()), MIN_STRESS)
        numerical = _extrapolated(calculate_numerical_stress, atoms, chosen.step)
        _close("stress is not the strain derivative of the energy", stress - numerical, gradients * size, "eV/Å³")


def _check_results(calc: BaseCalculator, atoms: Atoms, tolerance: float) -> None:
    n = len(atoms)
    atoms.get_forces()
    results = dict(calc.results)
    shapes = {"energy": (), "free_energy": (), "energies": (n,), "forces": (n, 3)}
    if atoms.pbc.all():
        shapes["stress"] = (6,)
    for name, shape in shapes.items():
        _true(name in results, f"{name} is missing from the results")
        _true(np.shape(results[name]) == shape, f"{name} has shape {np.shape(results[name])}; expected {shape}")
    for name, value in results.items():
        _true(name in calc.implemented_properties, f"{name} is not among implemented_properties")
        dtype = np.asarray(value).dtype
        _true(dtype == np.float64, f"{name} has dtype {dtype}; expected float64")
    _close("free_energy is not the energy", results["free_energy"] - results["energy"], 0.0, "eV")
    _close("energies do not sum to the energy", np.sum(results["energies"]) - results["energy"], tolerance, "eV")
    _close("forces do not sum to zero", results["forces"].sum(axis=0), tolerance, "eV/Å")

    before = {name: np.copy(value) for name, value in results.items()}
    moved = atoms.copy()
    moved.positions[0] += (0.05, -0.03, 0.02)
    moved.calc = calc
    moved.get_forces()
    for name, value in results.items():
        shared = np.ndim(value) > 0 and np.shares_memory(value, calc.results[name])
        unchanged = np.array_equal(value, before[name])
        _true(unchanged and not shared, f"{name} shares memory with the next call's; expected a new array")


def _check_symmetries(atoms: Atoms, tolerance: float, rng: np.random.Generator) -> None:
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    order = rng.permutation(len(atoms))
    images = rng.integers(-2, 3, size=(len(atoms), 3)) * atoms.pbc

    translated, rotated, unwrapped = atoms.copy(), atoms.copy(), atoms.copy()
    translated.positions += rng.uniform(-10.0, 10.0, size=3)
    rotated.set_cell(atoms.cell.array @ rotation.T)
    rotated.positions = atoms.positions @ rotation.T
    permuted = atoms[order]
    unwrapped.positions += images @ atoms.cell.array

    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    expected = {
        "translation": (translated, forces),
        "rotation": (rotated, forces @ rotation.T),
        "permutation": (permuted, forces[order]),
        "moving atoms by lattice vectors": (unwrapped, forces),
    }
    for motion, (other, other_forces) in expected.items():
        other.calc = atoms.calc
        _close(f"energy changes under {motion}", other.get_potential_energy() - energy, tolerance, "eV")
        _close(f"forces do not follow {motion}", other.get_forces() - other_forces, tolerance, "eV/Å")


def _extrapolated(derivative: Callable[..., Floats], atoms: Atoms, step: float) -> Floats:
    """Central differences with steps h and 2h, combined so that the error is of order h⁴ (Richardson)."""
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
