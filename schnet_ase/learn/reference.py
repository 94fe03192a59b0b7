"""Labels from any ASE calculator."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from schnet_ase.errors import LearnError
from schnet_ase.learn.config import ReferenceConfig
from schnet_ase.neighbors import Floats


class Label(NamedTuple):
    """What the reference says of a frame."""

    energy: float
    """eV."""
    forces: Floats
    """(N, 3) eV/Å."""


class ReferenceFailed(Exception):
    """A calculation that gave no label, and why in a line."""


def find_reference(reference: ReferenceConfig) -> Callable[[Atoms], Calculator]:
    """How a calculator for some atoms is made.

    Raises
    ------
    LearnError
        The import path leads nowhere, or the arguments do not fit.
    """
    module, _, name = reference.calculator.rpartition(".")
    try:
        maker: Callable[..., Calculator] = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
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
    except ValueError:  # of C, and does not say what it takes
        return inspect.signature(lambda *arguments, **named: None)


def label(atoms: Atoms, make_calculator: Callable[[Atoms], Calculator]) -> Label:
    """Energy and forces of `atoms` by a new calculator, so that a label does not depend on those before.

    Constraints are left out: a label has the forces on held atoms too.

    Raises
    ------
    ReferenceFailed
        It raised, did not converge, or gave numbers that are no label.
    """
    atoms = atoms.copy()
    atoms.set_constraint()
    try:
        atoms.calc = make_calculator(atoms)
        energy, forces = float(atoms.get_potential_energy()), np.array(atoms.get_forces(), dtype=float)
    except (Exception, SystemExit) as error:  # calculators fail in ways of their own
        raise ReferenceFailed(_in_a_line(error)) from error
    if forces.shape != (len(atoms), 3):
        raise ReferenceFailed(f"forces have the shape {forces.shape}; expected {(len(atoms), 3)}")
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise ReferenceFailed("energy or forces are not finite")
    if len(atoms) > 1 and not forces.any():
        raise ReferenceFailed("forces are all zero")
    return Label(energy, forces)


def _in_a_line(error: BaseException) -> str:
    reason = " ".join(str(error).split()) or "no reason given"
    return f"{type(error).__name__}: {reason[:300]}"


def pyscf(
    atoms: Atoms, method: str = "RKS", xc: str = "PBE", basis: str = "def2-svp", charge: int = 0, spin: int = 0
) -> Calculator:
    """PySCF's mean-field methods for a molecule as an ASE calculator.

    Parameters
    ----------
    atoms
        The molecule; PySCF wants to know its elements beforehand.
    method
        ``"RHF"``, ``"UHF"``, ``"RKS"`` or ``"UKS"``.
    xc
        Functional, of the last two.
    basis
        Basis set.
    charge
        e.
    spin
        Unpaired electrons.
    """
    from pyscf import dft, gto, scf
    from pyscf.pbc.tools.pyscf_ase import PySCF

    molecule = gto.M(
        atom=list(zip(atoms.symbols, atoms.positions, strict=True)), basis=basis, charge=charge, spin=spin, verbose=0
    )
    mean_field: Any = getattr(dft if method.endswith("KS") else scf, method)(molecule)
    mean_field._chkfile.close()  # PySCF leaves that to the garbage collector
    mean_field.chkfile = None
    if method.endswith("KS"):
        mean_field.xc = xc
    calculator: Calculator = PySCF(method=mean_field)
    return calculator
