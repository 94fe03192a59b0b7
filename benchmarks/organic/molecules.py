"""What a molecule must be to belong here, and pieces of molecules and new molecules made of others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from rdkit import Chem
from rdkit.Chem import BRICS
from rdkit.Chem.MolStandardize import rdMolStandardize

ELEMENTS = (1, 6, 7, 8, 9, 16, 17)
ATOMS = 60
"""At most, hydrogens among them."""
_ANCHOR = re.compile(r"\[\d+\*\]")


def fit(mol: Chem.Mol) -> bool:
    """Whether a molecule with its hydrogens is neutral, closed-shell, and of the elements and sizes here."""
    atoms = list(mol.GetAtoms())
    return (
        2 <= len(atoms) <= ATOMS
        and all(a.GetAtomicNum() in ELEMENTS and not a.GetNumRadicalElectrons() for a in atoms)
        and Chem.GetFormalCharge(mol) == 0
    )


def standard(smiles: str) -> str | None:
    """SMILES of the largest molecule of an entry without charge and isotopes; None if it does not belong here."""
    mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        return None
    mol = max(Chem.GetMolFrags(mol, asMols=True), key=lambda part: part.GetNumHeavyAtoms())
    mol = rdMolStandardize.Uncharger().uncharge(mol)
    for atom in mol.GetAtoms():
        atom.SetIsotope(0)
    found = Chem.MolToSmiles(mol)
    again = Chem.MolFromSmiles(found)
    return found if again is not None and fit(Chem.AddHs(again)) else None


def pieces(smiles: str) -> list[str]:
    """A molecule's fragments by BRICS (Degen et al., ChemMedChem 3, 1503, 2008), open bonds as numbered dummies."""
    return Chem.MolToSmiles(BRICS.BreakBRICSBonds(Chem.MolFromSmiles(smiles))).split(".")


def closed(piece: str) -> str | None:
    """A fragment with hydrogens at its open bonds, if it belongs here and has three heavy atoms or more."""
    mol = Chem.MolFromSmiles(_ANCHOR.sub("[H]", piece))
    return standard(Chem.MolToSmiles(mol)) if mol is not None and mol.GetNumHeavyAtoms() >= 3 else None


def joined(all_pieces: Sequence[str], rng: np.random.Generator) -> Iterator[str | None]:
    """New molecules of two or three fragments, joined where BRICS says that such a bond can be made, without end.

    Parameters
    ----------
    all_pieces
        Fragments with open bonds, as of `pieces`.
    rng
        Draws them. A molecule may come twice; None stands for one that does not belong here.
    """
    templates = [Chem.MolFromSmiles(piece) for piece in all_pieces]
    while True:
        mol = templates[int(rng.integers(len(templates)))]
        for _ in range(int(rng.integers(1, 3))):
            mol = _bonded(mol, templates[int(rng.integers(len(templates)))], rng)
        yield closed(Chem.MolToSmiles(mol))


def _bonded(one: Chem.Mol, other: Chem.Mol, rng: np.random.Generator) -> Chem.Mol:
    """A bond between two fragments in place of an open bond of each; the first as it was if none fits."""
    pairs = [(a, b) for a in _open(one) for b in _open(other) if (a.GetIsotope(), b.GetIsotope()) in _BONDS]
    if not pairs:
        return one
    a, b = pairs[int(rng.integers(len(pairs)))]
    both = Chem.RWMol(Chem.CombineMols(one, other))
    dummies = (a.GetIdx(), one.GetNumAtoms() + b.GetIdx())
    ends = [both.GetAtomWithIdx(dummy).GetNeighbors()[0].GetIdx() for dummy in dummies]
    both.AddBond(*ends, Chem.BondType.SINGLE)
    for dummy in sorted(dummies, reverse=True):
        both.RemoveAtom(dummy)
    return both.GetMol()


def _open(piece: Chem.Mol) -> list[Chem.Atom]:
    return [atom for atom in piece.GetAtoms() if atom.GetAtomicNum() == 0]


def _bonds() -> frozenset[tuple[int, int]]:
    single = [(a, b) for rules in BRICS.reactionDefs for a, b, bond in rules if bond == "-"]
    numbers = [(int(a.rstrip("ab")), int(b.rstrip("ab"))) for a, b in single]
    return frozenset(numbers) | {(b, a) for a, b in numbers}


_BONDS = _bonds()


def substituted(smiles: str, rng: np.random.Generator) -> str | None:
    """A molecule with one to three atoms exchanged for those of elements that QM9 lacks or has little of.

    Parameters
    ----------
    smiles
        Of the molecule.
    rng
        Chooses: H to Cl, F or SH; O to S; a carbonyl to a sulfone; None if what comes out is no molecule.
    """
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    for _ in range(int(rng.integers(1, 4))):
        rule = _RULES[int(rng.integers(len(_RULES)))]
        products = rule.RunReactants((mol,))
        if products:
            mol = products[int(rng.integers(len(products)))][0]
            try:
                Chem.SanitizeMol(mol)
            except (Chem.AtomValenceException, Chem.KekulizeException):
                return None
    return standard(Chem.MolToSmiles(Chem.RemoveHs(mol)))


def _rules() -> list[Chem.rdChemReactions.ChemicalReaction]:
    from rdkit.Chem.AllChem import ReactionFromSmarts

    return [
        ReactionFromSmarts(smarts)
        for smarts in (
            "[C,c:1][H]>>[*:1]Cl",
            "[C,c:1][H]>>[*:1]F",
            "[C,c:1][H]>>[*:1]S[H]",
            "[C:1][O:2][*:3]>>[C:1][S:2][*:3]",
            "[C:1]=[O:2]>>[C:1]=[S:2]",
            "[#6:1][CX3:2](=O)[#6,#7:3]>>[*:1]S(=O)(=O)[*:3]",
            "[o:1]>>[s:1]",
        )
    ]


_RULES = _rules()
