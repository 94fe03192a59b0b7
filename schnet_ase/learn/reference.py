"""Labels from any ASE calculator."""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.mixing import LinearCombinationCalculator

from schnet_ase.errors import LearnError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.learn.arguments import ignored_arguments
from schnet_ase.learn.charges import restore_whole_charge
from schnet_ase.learn.config import ReferenceConfig
from schnet_ase.learn.pyscf_molecule import pyscf

__all__ = ["Label", "ReferenceFailed", "check_reference", "find_reference", "label", "labelled_by", "pyscf"]

SAME_ENERGY = 1e-6
"""eV; energies that differ by less are one energy, written with other digits."""
log = logging.getLogger("schnet_ase")


class Label(NamedTuple):
    """Label of a frame by the reference."""

    energy: float
    """eV, the energy whose negative derivatives are the forces."""
    forces: Floats
    """(N, 3) eV/Å."""
    other_energy: float | None = None
    """eV, what the calculator calls its energy, if that differs."""


class ReferenceFailed(Exception):
    """A calculation gave no label; the message says why in a line."""


def find_reference(reference: ReferenceConfig) -> Callable[[Atoms], Calculator]:
    """Return a function that makes a calculator for some atoms.

    Raises
    ------
    LearnError
        The import path does not exist, or the arguments do not fit.
    """
    module, _, name = reference.calculator.rpartition(".")
    try:
        maker: Callable[..., Calculator] = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # importing a module may do anything
        raise LearnError(
            f"reference.calculator is {reference.calculator!r}, which cannot be imported ({_in_a_line(error)}); "
            "expected the path of an ASE calculator, like tblite.ase.TBLite, and that its package is installed"
        ) from error
    is_class = inspect.isclass(maker)
    try:
        _signature(maker).bind(*(() if is_class else (Atoms(),)), **reference.arguments)
    except TypeError as error:
        raise LearnError(f"reference.arguments do not fit {reference.calculator}: {error}") from error
    return lambda atoms: maker(*(() if is_class else (atoms,)), **reference.arguments)


def _signature(maker: Callable[..., Calculator]) -> inspect.Signature:
    try:
        return inspect.signature(maker)
    except ValueError:  # written in C, without a signature
        return inspect.signature(lambda *arguments, **named: None)


def check_reference(reference: ReferenceConfig, make_calculator: Callable[[Atoms], Calculator], atoms: Atoms) -> None:
    """Make a calculator for a first frame and check it, before anything is labelled.

    This logs a warning for arguments that the calculator ignores. If it cannot be made, labelling reports that later.

    Raises
    ------
    LearnError
        The function that makes the calculator refuses the frame or its arguments.
    """
    try:
        calculator = make_calculator(atoms.copy())
    except LearnError:
        raise
    except (Exception, SystemExit):
        return
    for name in ignored_arguments(calculator, reference.arguments):
        log.warning(
            "reference.arguments has %s, which %s does not know and ignores; it knows %s",
            name,
            reference.calculator,
            ", ".join(sorted(calculator.default_parameters)),
        )


def label(atoms: Atoms, make_calculator: Callable[[Atoms], Calculator]) -> Label:
    """Compute energy and forces of `atoms` with a new calculator, so that a label does not depend on earlier ones.

    Constraints are ignored, so that a label includes the forces on held atoms. Initial charges whose sum is a whole
    number up to rounding are corrected to that sum.

    Raises
    ------
    ReferenceFailed
        The calculation raised an error, did not converge, or gave numbers that are no label.
    LearnError
        The function that makes the calculator refuses the frame.
    """
    atoms = atoms.copy()
    atoms.set_constraint()
    restore_whole_charge(atoms)
    try:
        atoms.calc = make_calculator(atoms)
        found = labelled_by(atoms)
    except LearnError:
        raise
    except (Exception, SystemExit) as error:  # calculators raise errors of every kind
        raise ReferenceFailed(_in_a_line(error)) from error
    if found.forces.shape != (len(atoms), 3):
        raise ReferenceFailed(f"forces have the shape {found.forces.shape}; expected {(len(atoms), 3)}")
    if not (np.isfinite(found.energy) and np.isfinite(found.forces).all()):
        raise ReferenceFailed("energy or forces are not finite")
    if len(atoms) > 1 and not found.forces.any():
        raise ReferenceFailed("forces are all zero")
    return found


def labelled_by(atoms: Atoms) -> Label:
    """Return the label from the atoms' calculator, in one calculation if possible.

    Forces are requested first, because many calculators find the energy on the way, but not the other way round. With
    smeared occupations, forces are derivatives of the free energy, which is then the label.
    """
    forces = np.array(atoms.get_forces(apply_constraint=False), dtype=float)
    energy = float(atoms.get_potential_energy())
    free = _free_energy(atoms.calc)
    if not np.isfinite(free) or abs(free - energy) < SAME_ENERGY:
        return Label(energy, forces)
    return Label(free, forces, energy)


def _free_energy(calculator: Any) -> float:
    """Return the free energy of a calculator, eV; its energy if it does not distinguish the two, NaN if it has neither.

    ASE's sums of calculators, such as density-functional theory and dispersion, lose the free energy of one part if
    another part does not declare one.
    """
    if isinstance(calculator, LinearCombinationCalculator):
        parts = zip(calculator.mixer.weights, calculator.mixer.calcs, strict=True)
        return float(sum(weight * _free_energy(part) for weight, part in parts))
    results = getattr(calculator, "results", {})
    free = results.get("free_energy")
    return float(results.get("energy", np.nan) if free is None else free)


def _in_a_line(error: BaseException) -> str:
    reason = " ".join(str(error).split()) or "no reason given"
    return f"{type(error).__name__}: {reason[:300]}"
