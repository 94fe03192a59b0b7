"""A molecule in space: RDKit's conformers, and a force field whose dynamics cost next to nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ase import units
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

# u, of all atoms: which geometries dynamics visit does not depend on masses, but light atoms need shorter steps.
MASS = 12.0
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
    parts: np.ndarray
    """(N,) which molecule an atom is of."""
    field: Forces


class Moving(NamedTuple):
    """Where dynamics are."""

    positions: np.ndarray
    """(N, 3) Å."""
    velocities: np.ndarray
    """(N, 3) in ASE's units."""


def with_hydrogens(smiles: str) -> Chem.Mol:
    """The molecules of a SMILES with all their hydrogens, one after the other, without geometry."""
    mols = [Chem.MolFromSmiles(part) for part in smiles.split(".")]
    if None in mols:
        raise NoGeometry(f"{smiles}: not a SMILES")
    return functools.reduce(Chem.CombineMols, map(Chem.AddHs, mols))


def embed(mol: Chem.Mol, rng: np.random.Generator, contact: float = 2.2) -> Chem.Mol:
    """A copy with a conformer; molecules are put together one by one, anyhow.

    Parameters
    ----------
    mol
        As `with_hydrogens` makes it.
    rng
        Of conformers and directions.
    contact
        Å between the nearest atoms of a molecule and of those before it.
    """
    done: Chem.Mol | None = None
    for part in Chem.GetMolFrags(mol, asMols=True):
        part = _embed(part, rng)
        if done is not None:
            part.GetConformer().SetPositions(
                _placed(part.GetConformer().GetPositions(), done.GetConformer().GetPositions(), contact, rng)
            )
            part = Chem.CombineMols(done, part)
        done = part
    Chem.SanitizeMol(done)
    return done


def _embed(mol: Chem.Mol, rng: np.random.Generator) -> Chem.Mol:
    """A conformer as RDKit guesses it (ETKDGv3; Wang et al., JCIM 60, 2044, 2020)."""
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


def _placed(positions: np.ndarray, others: np.ndarray, contact: float, rng: np.random.Generator) -> np.ndarray:
    """A molecule turned at random and moved in a random direction until it no longer comes nearer than `contact`."""
    positions = (positions - positions.mean(0)) @ Rotation.random(rng=rng).as_matrix().T
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    for distance in np.arange(0.0, 60.0, 0.1):
        moved = others.mean(0) + positions + distance * direction
        if cdist(moved, others).min() >= contact:
            return moved
    raise NoGeometry("molecules cannot be put beside each other")


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

    parts = np.zeros(len(numbers), dtype=int)
    for number, atoms in enumerate(Chem.GetMolFrags(mol)):
        parts[list(atoms)] = number
    return Start(numbers, positions, bonds, parts, forces)


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


def langevin(
    state: Moving,
    forces: Forces,
    temperature: float,
    steps: int,
    rng: np.random.Generator,
    friction: float = FRICTION,
) -> Moving:
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
    friction
        Of the thermostat; 0: none.
    """
    positions, velocities = state
    decay = np.exp(-friction * TIMESTEP)
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
