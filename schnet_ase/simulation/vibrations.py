"""Harmonic vibrations of a structure, with the spread over the members of an ensemble."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from ase.io import write
from ase.io.jsonio import encode
from ase.vibrations.data import VibrationsData

from schnet_ase.calculators.fixed import FixedCalculator
from schnet_ase.errors import StructureError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.geometry.motion import rigid_modes
from schnet_ase.output.files import atomic_write

STEP = 0.005
"""Displacement of the finite differences, Å."""
STENCIL = ((-2, 1.0), (-1, -8.0), (1, 8.0), (2, -1.0))
"""Steps and weights of the central difference of fourth order, whose sum is divided by 12 steps."""
NAMED = 3
"""Number of atoms that a mode is described by."""


class Mode(NamedTuple):
    """One vibration."""

    wavenumber: float
    """1/cm; an imaginary one is negative."""
    spread: float
    """Standard deviation over the members of an ensemble (``ddof=1``), 1/cm; NaN for a single network."""
    shares: Floats
    """(N,) share of each atom in the kinetic energy of the mode."""
    motion: Floats
    """(N, 3) displacements, normalized after multiplication with the roots of the masses."""

    def moves(self, atoms: Atoms) -> str:
        """Return in words which atoms move most, such as ``H14 81 %, O5 9 %``."""
        order = np.argsort(-self.shares)[:NAMED]
        return ", ".join(f"{atoms.symbols[i]}{i} {100 * self.shares[i]:.0f} %" for i in order if self.shares[i] > 0.05)


class Vibrations(NamedTuple):
    """Vibrations of a structure, without its translations and rotations."""

    atoms: Atoms
    data: VibrationsData
    """ASE's form of the Hessian, from which translations and rotations have been projected out."""
    modes: tuple[Mode, ...]
    """In ascending order, imaginary ones first."""
    rigid: int
    """Number of translations and rotations that were left out."""
    members: tuple[Floats, ...]
    """For each member of an ensemble, the wavenumbers of its own Hessian in ascending order; empty for one network."""

    @property
    def imaginary(self) -> tuple[Mode, ...]:
        """Modes along which the energy falls."""
        return tuple(mode for mode in self.modes if mode.wavenumber < 0.0)

    @property
    def energies(self) -> list[float]:
        """Energies of the quanta of the real modes, eV."""
        return real_energies(np.array([mode.wavenumber for mode in self.modes]))


def real_energies(wavenumbers: Floats) -> list[float]:
    """Return the energies in eV of quanta whose wavenumbers (1/cm) are positive."""
    energies: list[float] = (wavenumbers[wavenumbers > 0.0] * units.invcm).tolist()
    return energies


def vibrations(atoms: Atoms, report: Callable[[int, int], None] = lambda done, total: None) -> Vibrations:
    r"""Compute the harmonic vibrations of a structure at a stationary point.

    Translations and rotations, see `schnet_ase.geometry.motion.rigid_modes`, are projected out of the Hessian before it
    is diagonalized, so that none of them is taken for a vibration. The spread of a mode v with eigenvalue
    :math:`\lambda = \omega^2` is that of first-order perturbation theory,

    .. math:: \sigma(\omega) = \frac{\sigma_m(v^T H_m v)}{2 \omega},

    over the mass-weighted Hessians of the members; unlike a comparison of sorted lists, it does not mix up modes that
    are near each other.

    Parameters
    ----------
    atoms
        Atoms with a calculator. Atoms that ``FixAtoms`` fixes do not vibrate.
    report
        Callback that receives the number of atoms done and their total number.

    Raises
    ------
    StructureError
        All atoms are fixed, or there is only one, which is free.
    """
    indices = VibrationsData.indices_from_constraints(atoms)
    columns = (3 * np.array(indices, dtype=int)[:, None] + np.arange(3)).ravel()
    rigid = rigid_modes(atoms)[columns]
    if len(columns) <= rigid.shape[1]:
        raise StructureError(f"{atoms.get_chemical_formula()} has no vibration: no atom can move against another")
    mean, members = hessians(atoms, indices, report)
    roots = np.sqrt(np.repeat(atoms.get_masses()[indices], 3))
    inner = np.eye(len(columns)) - rigid @ rigid.T

    def projected(hessian: Floats) -> Floats:
        weighted: Floats = inner @ (hessian / np.outer(roots, roots)) @ inner
        return weighted

    scaled = projected(mean)
    data = VibrationsData.from_2d(atoms, scaled * np.outer(roots, roots), indices)
    energies, motions = data.get_energies_and_modes()
    vectors = motions.reshape(len(energies), -1) * roots
    vibrating = np.sort(np.argsort(np.sum((vectors @ rigid) ** 2, axis=1))[: len(energies) - rigid.shape[1]])
    theirs = [projected(member) for member in members]
    modes = []
    for k in vibrating:
        wavenumber = float(energies[k].real - energies[k].imag) / units.invcm
        spread = math.nan
        if theirs and wavenumber:
            curvatures = [vectors[k] @ member @ vectors[k] for member in theirs]
            own = vectors[k] @ scaled @ vectors[k]
            spread = float(abs(wavenumber / (2.0 * own)) * np.std(curvatures, ddof=1))
        shares, motion = np.zeros(len(atoms)), np.zeros((len(atoms), 3))
        shares[indices] = np.sum(vectors[k].reshape(-1, 3) ** 2, axis=1)
        motion[indices] = motions[k]
        modes.append(Mode(wavenumber, spread, shares, motion))
    return Vibrations(
        atoms, data, tuple(modes), rigid.shape[1], tuple(_wavenumbers(member, rigid) for member in theirs)
    )


def hessians(
    atoms: Atoms, indices: list[int], report: Callable[[int, int], None] = lambda done, total: None
) -> tuple[Floats, list[Floats]]:
    """Return second derivatives of the energy.

    Parameters
    ----------
    atoms
        Atoms with a calculator. Those of ours give analytic derivatives; for others, such as sums, the forces are
        differentiated by finite differences of fourth order.
    indices
        Atoms that vibrate, n in number.
    report
        See `vibrations`.

    Returns
    -------
    (3n, 3n) array and list of such arrays
        eV/Å², symmetric: of the calculator, and of each member if it is an ensemble.
    """
    if isinstance(atoms.calc, FixedCalculator):
        columns = (3 * np.array(indices, dtype=int)[:, None] + np.arange(3)).ravel()
        every = atoms.calc.get_hessians(atoms)[:, columns][:, :, columns]
        report(len(indices), len(indices))
        return every.mean(axis=0), list(every) if len(every) > 1 else []
    return _by_differences(atoms, indices, report)


def _by_differences(
    atoms: Atoms, indices: list[int], report: Callable[[int, int], None]
) -> tuple[Floats, list[Floats]]:
    displaced = atoms.copy()
    displaced.set_constraint()
    displaced.calc = atoms.calc
    rows: list[Floats] = []
    for done, i in enumerate(indices):
        for axis in range(3):
            row: Floats = np.zeros(())
            for steps, weight in STENCIL:
                displaced.positions[i, axis] = atoms.positions[i, axis] + steps * STEP
                row = row - weight * _forces(displaced)[:, indices].reshape(-1, 3 * len(indices)) / (12.0 * STEP)
            displaced.positions[i, axis] = atoms.positions[i, axis]
            rows.append(row)
        report(done + 1, len(indices))
    stacked = np.array(rows).transpose(1, 0, 2)
    stacked = 0.5 * (stacked + stacked.transpose(0, 2, 1))
    return stacked[0], list(stacked[1:])


def _forces(atoms: Atoms) -> Floats:
    """Return the forces (1 + M, N, 3), with those of the M members of an ensemble behind their mean."""
    mean = atoms.get_forces()
    members = atoms.calc.results.get("forces_ensemble", np.empty((0, *mean.shape)))
    together: Floats = np.concatenate([mean[None], members])
    return together


def _wavenumbers(scaled: Floats, rigid: Floats) -> Floats:
    """Return the wavenumbers (1/cm) of a mass-weighted Hessian outside the rigid motions; imaginary ones negative."""
    left, _, _ = np.linalg.svd(rigid, full_matrices=True)
    basis = left[:, rigid.shape[1] :]
    squared = np.linalg.eigvalsh(basis.T @ scaled @ basis)
    unit = units._hbar * 1e10 / math.sqrt(units._e * units._amu)  # as VibrationsData has it
    found: Floats = np.sign(squared) * np.sqrt(np.abs(squared)) * unit / units.invcm
    return found


def write_vibrations(found: Vibrations, output: Path) -> None:
    """Write ``.csv`` (a row for each mode), ``.json`` (ASE's `VibrationsData`), ``.xyz`` (the structure), ``.png``."""
    from schnet_ase.simulation.pictures import spectrum  # loads matplotlib, hence only here

    lines = ["mode,wavenumber_per_cm,imaginary,spread_per_cm,moves"]
    for number, mode in enumerate(found.modes):
        moves = mode.moves(found.atoms).replace(",", ";")
        lines.append(f"{number},{abs(mode.wavenumber):.6f},{int(mode.wavenumber < 0)},{mode.spread:.6f},{moves}")
    text = io.StringIO()
    write(text, found.atoms, format="extxyz")
    atomic_write(f"{output}.xyz", text.getvalue())
    atomic_write(f"{output}.json", encode(found.data))
    spectrum(found, Path(f"{output}.png"))
    atomic_write(f"{output}.csv", "\n".join(lines) + "\n")
