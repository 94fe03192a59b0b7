"""A molecule in space: RDKit's conformers, and a force field whose dynamics cost next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ase import units
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

MASS = 12.0  # u, of all atoms: which geometries dynamics visit does not depend on masses, light ones only need more steps
TIMESTEP = 2.0 * units.fs
FRICTION = 0.02 / units.fs
_EV = units.kcal / units.mol

Forces = Callable[[np.ndarray], np.ndarray]
"""(N, 3) positions in Å to (N, 3) forces in eV/Å."""


class NoGeometry(Exception):
    """RDKit finds no geometry for a molecule, or no force field."""


class Start(NamedTuple):
    """A molecule, or several, with positions and a force field."""

    numbers: np.ndarray
    """(N,) atomic numbers."""
    positions: np.ndarray
    """(N, 3) Å."""
    bonds: np.ndarray
    """(M, 2) atoms."""
    field: Forces


class Moving(NamedTuple):
    """Where dynamics are."""

    positions: np.ndarray
    """(N, 3) Å."""
    velocities: np.ndarray
    """(N, 3) in ASE's units."""


def with_hydrogens(smiles: str) -> Chem.Mol:
    """The molecule of a SMILES with all its hydrogens, without geometry."""
    mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise NoGeometry(f"{smiles}: not a SMILES")
    return Chem.AddHs(mol)


def embed(mol: Chem.Mol, rng: np.random.Generator) -> Chem.Mol:
    """A copy with a conformer as RDKit guesses it (ETKDGv3; Wang et al., JCIM 60, 2044, 2020)."""
    mol = Chem.Mol(mol)
    seed = int(rng.integers(1, 2**31 - 1))
    random = {"randomSeed": seed, "useRandomCoords": True}
    # Cages need more attempts, and without what is known of torsions. By iterations, as a time limit would not give the
    # same molecules twice.
    for options, settings in (
        (rdDistGeom.ETKDGv3(), {"randomSeed": seed, "maxIterations": 5}),
        (rdDistGeom.ETKDGv3(), {**random, "maxIterations": 20}),
        (rdDistGeom.EmbedParameters(), {**random, "maxIterations": 50}),
    ):
        for name, value in settings.items():
            setattr(options, name, value)
        if rdDistGeom.EmbedMolecule(mol, options) >= 0:
            return mol
    raise NoGeometry(f"{Chem.MolToSmiles(mol)}: no conformer")


def start(mol: Chem.Mol, relaxed: bool = True) -> Start:
    """What frames are sampled from.

    Parameters
    ----------
    mol
        With a conformer.
    relaxed
        Whether the force field relaxes the conformer.
    """
    field = _field(mol)
    field.Initialize()
    if relaxed:
        field.Minimize(maxIts=500)
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    bonds = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()]).reshape(-1, 2)
    positions = np.array(mol.GetConformer().GetPositions())

    def forces(at: np.ndarray) -> np.ndarray:
        field.Initialize()  # else RDKit 2026.9.1 takes the distances of the positions that it was asked for before
        return -_EV * np.array(field.CalcGrad(at.ravel().tolist())).reshape(-1, 3)

    return Start(numbers, positions, bonds, forces)


def _field(mol: Chem.Mol):  # type: ignore[no-untyped-def]
    """MMFF94, or UFF where it lacks a parameter."""
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol)
    if properties is not None:
        # Molecules do not see each other by default.
        field = rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, properties, ignoreInterfragInteractions=False)
    elif rdForceFieldHelpers.UFFHasAllMoleculeParams(mol):
        field = rdForceFieldHelpers.UFFGetMoleculeForceField(mol, ignoreInterfragInteractions=False)
    else:
        field = None
    if field is None:
        raise NoGeometry(f"{Chem.MolToSmiles(mol)}: no force field")
    return field


def at_rest(positions: np.ndarray) -> Moving:
    """Dynamics that have not begun."""
    return Moving(positions, np.zeros_like(positions))


def langevin(state: Moving, forces: Forces, temperature: float, steps: int, rng: np.random.Generator) -> Moving:
    """Langevin dynamics by the splitting BAOAB (Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34).

    Parameters
    ----------
    state
        Where to begin.
    forces
        Force field or GFN2-xTB.
    temperature
        K.
    steps
        How many, of 2 fs.
    rng
        Of the thermostat.
    """
    positions, velocities = state
    decay = np.exp(-FRICTION * TIMESTEP)
    kick = np.sqrt((1.0 - decay**2) * units.kB * temperature / MASS)
    force = forces(positions)
    for _ in range(steps):
        velocities = velocities + 0.5 * TIMESTEP / MASS * force
        positions = positions + 0.5 * TIMESTEP * velocities
        velocities = decay * velocities + kick * rng.standard_normal(velocities.shape)
        positions = positions + 0.5 * TIMESTEP * velocities
        force = forces(positions)
        velocities = velocities + 0.5 * TIMESTEP / MASS * force
    return Moving(positions, velocities)
