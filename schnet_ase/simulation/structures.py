"""Structures to start from: all frames of a file, or a molecule made from a SMILES."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import cast

import ase.io
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from schnet_ase.errors import StructureError
from schnet_ase.simulation.sdf import UNREADABLE, read_records, state_electrons

SDF = (".sdf", ".mol")
"""Suffixes of files that `schnet_ase.simulation.sdf` reads."""
GAP = 2.5
"""Gap between the molecules of one SMILES, Å."""


def read_structures(path: Path, index: str | int = ":") -> list[Atoms]:
    """Read the structures of a file in any format of ASE's, or in SDF with all its records.

    Parameters
    ----------
    path
        File.
    index
        Frames to read, in ASE's notation; -1 reads the last.

    Returns
    -------
    list of Atoms
        At least one structure. Records of an SDF file that cannot be read are without atoms if others can be read; see
        `schnet_ase.simulation.sdf.read_records`.

    Raises
    ------
    StructureError
        There is no such file, ASE cannot read it, or it has no atoms.
    """
    try:
        if path.suffix.lower() in SDF:
            records = read_records(path)
            found = records if index == ":" else records[-1:]
            if len(found) == 1 and UNREADABLE in found[0].info:
                raise StructureError(found[0].info[UNREADABLE])
        else:
            read = ase.io.read(path, index=index)
            found = cast("list[Atoms]", read if isinstance(read, list) else [read])
    except FileNotFoundError as error:
        raise StructureError(f"{path}: there is no such file; expected a structure that ASE can read") from error
    except StructureError:
        raise
    except Exception as error:  # ASE's readers raise any kind of error
        raise StructureError(f"{path}: not a structure that ASE can read ({error}){_of_comment(path)}") from error
    if not any(len(atoms) for atoms in found):
        raise StructureError(f"{path}: no structure in it; expected at least one with atoms{_of_comment(path)}")
    return found


def _of_comment(path: Path) -> str:
    if path.suffix.lower() != ".xyz":
        return ""
    return "; ASE takes the second line of a frame for KEY=VALUE pairs: empty that line if it is free text"


def from_smiles(smiles: str, seed: int = 0) -> Atoms:
    """Make a molecule from a SMILES: positions by RDKit's ETKDG, refined with its force field MMFF94 or UFF.

    Parameters
    ----------
    smiles
        SMILES; hydrogens are added. Several molecules (``O.O``) are put side by side; isotopes (``[2H]``) keep their
        mass.
    seed
        Seed of the embedding, so that the same SMILES gives the same conformer.

    Returns
    -------
    Atoms
        ``atoms.info`` has the SMILES as ``name``, and ``charge`` (e) and ``unpaired_electrons`` where they are not 0.

    Raises
    ------
    StructureError
        RDKit is not installed, or cannot parse or embed the SMILES.
    """
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem import rdDistGeom, rdForceFieldHelpers
    except ImportError as error:
        raise StructureError("a SMILES needs RDKit; install it with: pip install 'schnet_ase[organic]'") from error
    with rdBase.BlockLogs():  # RDKit prints several lines of its own for a mistyped SMILES
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or not molecule.GetNumAtoms():
        raise StructureError(f"{smiles!r} is no SMILES that RDKit can parse; expected one such as CCO")
    if any(not atom.GetAtomicNum() for atom in molecule.GetAtoms()):
        raise StructureError(
            f"{smiles!r} has an atom of no element (*); expected a whole molecule: write its atom there"
        )
    molecule = Chem.AddHs(molecule)
    with rdBase.BlockLogs():  # and for atoms that its force fields do not know
        embedded = not rdDistGeom.EmbedMolecule(molecule, randomSeed=seed) or not rdDistGeom.EmbedMolecule(
            molecule, randomSeed=seed, useRandomCoords=True
        )
        if embedded and rdForceFieldHelpers.MMFFHasAllMoleculeParams(molecule):
            rdForceFieldHelpers.MMFFOptimizeMolecule(molecule, maxIters=2000)
        elif embedded and rdForceFieldHelpers.UFFHasAllMoleculeParams(molecule):
            rdForceFieldHelpers.UFFOptimizeMolecule(molecule, maxIters=2000)
    if not embedded:
        raise StructureError(f"{smiles!r}: RDKit finds no positions for its atoms; give a file with a structure")
    numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
    positions = side_by_side(np.array(molecule.GetConformer().GetPositions()), Chem.GetMolFrags(molecule))
    atoms = Atoms(numbers, positions, info={"name": smiles})
    isotopes = [atom.GetIdx() for atom in molecule.GetAtoms() if atom.GetIsotope()]
    if isotopes:
        masses = atoms.get_masses()
        masses[isotopes] = [molecule.GetAtomWithIdx(index).GetMass() for index in isotopes]
        atoms.set_masses(masses)
    unpaired = sum(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms())
    state_electrons(atoms, Chem.GetFormalCharge(molecule), unpaired)
    return atoms


def side_by_side(positions: NDArray[np.float64], molecules: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Move molecules along x until there is a gap of `GAP` between each and the next.

    RDKit makes every molecule of a SMILES around the same origin.
    """
    moved = positions.copy()
    for before, after in pairwise(list(molecule) for molecule in molecules):
        moved[after, 0] += moved[before, 0].max() + GAP - moved[after, 0].min()
    return moved
