"""PySCF as a reference for molecules, with charge, unpaired electrons and effective cores from atoms and basis."""

from __future__ import annotations

import contextlib
import warnings
from functools import cache
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator
from scipy.linalg import eigh

from schnet_ase.errors import LearnError
from schnet_ase.learn.charges import total_charge, unpaired_electrons

DESCRIBES_THE_CORE = 0.5
"""Smallest share of the exact energy, −Z²/2, of one electron at a bare nucleus that a basis must reach. All-electron
bases reach 0.66 (ANO-RCC, lead) to 1, those made for an effective core at most 0.36."""
UNRESTRICTED = {"RKS": "UKS", "RHF": "UHF"}


def pyscf(
    atoms: Atoms,
    method: str = "RKS",
    xc: str = "PBE",
    basis: str | dict[str, str] = "def2-svp",
    charge: int | None = None,
    spin: int | None = None,
) -> Calculator:
    """Make an ASE calculator of PySCF's mean-field methods for a molecule.

    Elements for which the basis has an effective core potential are calculated with it.

    Parameters
    ----------
    atoms
        The molecule; PySCF needs its elements beforehand.
    method
        ``"RHF"``, ``"UHF"``, ``"RKS"`` or ``"UKS"``. With unpaired electrons, ``"UHF"`` and ``"UKS"`` replace ``"RHF"``
        and ``"RKS"``.
    xc
        Functional, for the last two methods.
    basis
        Name of the basis set, or one for each element.
    charge
        Total charge, e; None: the sum of the initial charges.
    spin
        Number of unpaired electrons; None: the sum of the initial magnetic moments.

    Raises
    ------
    LearnError
        The atoms are periodic; their charges or moments contradict the arguments, or do not sum to a whole number; the
        number of unpaired electrons does not fit that of all electrons; or the basis leaves out the core of an element
        for which PySCF finds no effective core potential of that name.
    """
    from pyscf import dft, gto, scf
    from pyscf.pbc.tools.pyscf_ase import PySCF

    if atoms.pbc.any():
        raise LearnError(
            f"schnet_ase.learn.reference.pyscf is for molecules, but a frame has pbc = {atoms.pbc.tolist()}; set "
            "pbc = False, or name a function of your own that uses pyscf.pbc as reference.calculator"
        )
    charge, spin = total_charge(atoms, charge), unpaired_electrons(atoms, spin)
    n_electrons = int(atoms.numbers.sum()) - charge
    if (n_electrons - spin) % 2:
        raise LearnError(
            f"{atoms.symbols} of charge {charge} has {n_electrons} electrons, of which {spin} cannot be unpaired; give "
            "initial charges and magnetic moments, or charge and spin in reference.arguments, that fit"
        )
    names = {  # in the order of the atoms, so that a message names the same element in each process
        s: basis.get(s, basis.get("default", "")) if isinstance(basis, dict) else basis
        for s in dict.fromkeys(atoms.symbols)
    }
    molecule = gto.M(
        atom=list(zip(atoms.symbols, atoms.positions, strict=True)),
        basis=names,
        ecp={symbol: name for symbol, name in names.items() if _has_effective_core(symbol, name)},
        charge=charge,
        spin=spin,
        verbose=0,
    )
    if spin:
        method = UNRESTRICTED.get(method, method)
    make = getattr(dft if method.endswith("KS") else scf, method, None)
    if make is None:
        raise LearnError(f"method is {method!r}; expected RHF, UHF, RKS or UKS, and a functional as xc")
    mean_field: Any = make(molecule)
    mean_field._chkfile.close()  # PySCF leaves that to the garbage collector
    mean_field.chkfile = None
    if method.endswith("KS"):
        mean_field.xc = xc
    calculator: Calculator = PySCF(method=mean_field)
    return calculator


@cache
def _has_effective_core(symbol: str, basis: str) -> bool:
    """Return whether a basis needs the effective core potential of its own name, which PySCF does not use by
    default."""
    from pyscf import gto
    from pyscf.gto.basis import load_ecp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PySCF warns about another package that may know more names
        with contextlib.suppress(OSError, RuntimeError, KeyError):  # there is none
            if load_ecp(basis, symbol):
                return True
        number = gto.charge(symbol)
        try:
            atom = gto.M(atom=[(symbol, (0.0, 0.0, 0.0))], basis=basis, spin=number % 2, verbose=0)
        except RuntimeError as error:
            raise LearnError(f"PySCF has no basis {basis!r} for {symbol}; correct reference.arguments") from error
    one_electron = atom.intor("int1e_kin") + atom.intor("int1e_nuc")
    lowest = eigh(one_electron, atom.intor("int1e_ovlp"), eigvals_only=True, subset_by_index=[0, 0])[0]
    if -lowest < DESCRIBES_THE_CORE * number**2 / 2:
        raise LearnError(
            f"the basis {basis!r} leaves out the core of {symbol}, and PySCF has no effective core potential of that "
            "name; give another basis, or name a function of your own that sets ecp as reference.calculator"
        )
    return False
