"""Which split a molecule belongs to: a hash of its group, so that no molecule that is added later moves another."""

from __future__ import annotations

import hashlib

from rdkit import Chem
from rdkit.Chem.Scaffolds import MurckoScaffold

FOLDS = 5
SMALL = 9
"""Heavy atoms up to which a molecule is its own group; QM9's have no more."""
HELD_OUT = {"test": 6, "calibration": 6}
"""Subsets that no member is trained on, and their per cent of the groups."""


def split_of(group: str) -> str:
    """The split of a group of molecules, one of `SPLITS`."""
    digest = hashlib.sha256(f"organic {group}".encode()).digest()
    percent = int.from_bytes(digest[:8], "big") % 100
    for split, share in HELD_OUT.items():
        if percent < share:
            return split
        percent -= share
    return f"fold-{int.from_bytes(digest[8:16], 'big') % FOLDS}"


def constitution(mol: Chem.Mol) -> str:
    """Canonical SMILES without stereochemistry."""
    bare = Chem.RemoveHs(mol)
    Chem.RemoveStereochemistry(bare)
    return Chem.MolToSmiles(Chem.MolFromSmiles(Chem.MolToSmiles(bare)))


def group_of(mol: Chem.Mol, scaffolds: bool) -> str:
    """What a molecule shares its split with.

    Parameters
    ----------
    mol
        The molecule.
    scaffolds
        Whether molecules of more than nine heavy atoms are grouped by their Murcko scaffold (Bemis and Murcko,
        J. Med. Chem. 39, 2887, 1996), as the drug-like ones are; else, and without a ring, a group is a constitution.
    """
    whole = constitution(mol)
    if not scaffolds or mol.GetNumHeavyAtoms() <= SMALL:
        return whole
    return constitution(MurckoScaffold.GetScaffoldForMol(mol)) or whole
