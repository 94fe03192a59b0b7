"""Thermochemistry of harmonic vibrations by ASE, with the spread over the members of an ensemble."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from ase import Atoms
from ase.thermochemistry import HarmonicThermo, IdealGasThermo

from schnet_ase.errors import StructureError
from schnet_ase.simulation.vibrations import Vibrations, real_energies

Kind = Literal["ideal-gas", "harmonic"]


class Conditions(NamedTuple):
    """Conditions that thermochemical quantities belong to."""

    kind: Kind
    """``"ideal-gas"``: free molecules that translate, rotate and vibrate; ``"harmonic"``: vibrations alone."""
    temperature: float = 298.15
    """K."""
    pressure: float = 101325.0
    """Pa; of an ideal gas."""
    symmetry_number: int = 1
    """Symmetry number of the molecule, of an ideal gas."""
    spin: float = 0.0
    """Total spin: 0 for paired electrons, 0.5 for one that is unpaired; of an ideal gas."""


class Value(NamedTuple):
    """A quantity with its standard deviation over the members; NaN for a single network."""

    mean: float
    spread: float


class Thermochemistry(NamedTuple):
    """Thermochemical quantities; real modes only."""

    zero_point: Value
    """Zero-point energy, eV."""
    enthalpy: Value
    """Enthalpy H of an ideal gas, or internal energy U of harmonic vibrations, less the potential energy; eV."""
    entropy: Value
    """eV/K."""
    free_energy: Value
    """Gibbs energy G of an ideal gas, or Helmholtz energy F, less the potential energy; eV."""


def default_kind(found: Vibrations) -> Kind:
    """Return the kind that suits a structure: an ideal gas for a free molecule, else harmonic vibrations."""
    return "ideal-gas" if _shape(found) else "harmonic"


def thermochemistry(found: Vibrations, conditions: Conditions) -> Thermochemistry:
    """Compute thermochemical quantities by ASE's `IdealGasThermo` or `HarmonicThermo`.

    Translations, rotations and imaginary modes are left out before, since `IdealGasThermo` chooses by size, and would
    count a rotation of a saddle point in place of its imaginary mode.

    Raises
    ------
    StructureError
        An ideal gas is asked for, but the structure is periodic or constrained.
    """
    shape = _shape(found)
    if conditions.kind == "ideal-gas" and shape is None:
        raise StructureError(
            "an ideal gas consists of free molecules, but the structure is periodic or has fixed atoms; take harmonic"
        )

    def of(energies: Sequence[float]) -> tuple[float, float, float, float]:
        zero_point, T = 0.5 * sum(energies), conditions.temperature
        if conditions.kind == "harmonic" or shape is None:
            harmonic = HarmonicThermo(energies)
            heat, entropy = harmonic.get_internal_energy(T, verbose=False), harmonic.get_entropy(T, verbose=False)
        else:
            gas = IdealGasThermo(
                energies,
                geometry=shape,
                atoms=found.atoms,
                symmetrynumber=conditions.symmetry_number,
                spin=conditions.spin,
                vib_selection="all",
            )
            heat = gas.get_enthalpy(T, verbose=False)
            entropy = gas.get_entropy(T, conditions.pressure, verbose=False)
        return zero_point, float(heat), float(entropy), float(heat - T * entropy)

    means = of(found.energies)
    spreads = [math.nan] * 4
    quanta = [real_energies(member) for member in found.members]
    # Members that disagree on which modes are imaginary have no common thermochemistry.
    if quanta and {len(energies) for energies in quanta} == {len(found.energies)}:
        spreads = np.std([of(energies) for energies in quanta], axis=0, ddof=1).tolist()
    return Thermochemistry(*(Value(mean, spread) for mean, spread in zip(means, spreads, strict=True)))


def _shape(found: Vibrations) -> Literal["linear", "nonlinear"] | None:
    """Return the shape of a free molecule; None if the structure is periodic or has fixed atoms."""
    atoms: Atoms = found.atoms
    if atoms.pbc.any() or atoms.constraints:
        return None
    return "linear" if found.rigid == 5 else "nonlinear"
