"""Several molecules together: with water, with their own kind, with others of the same split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from rdkit import Chem

from .molecules import ATOMS
from .splits import group_of, split_of

Named = tuple[str, str, bool]
"""Name, SMILES and whether the group is the scaffold's."""


def clusters(sources: Sequence[Sequence[Named]], number: int, pairs: bool, rng: np.random.Generator) -> Iterator[Named]:
    """Names and SMILES of clusters. The first molecule decides on the split; water may be in any.

    Parameters
    ----------
    sources
        Molecules, each source drawn from equally often.
    number
        How many clusters.
    pairs
        Two molecules always; else up to eight waters, up to three others, and clusters of one solvent.
    rng
        Draws them.
    """
    by_split: dict[str, list[tuple[str, str, int]]] = {}
    known = {named: _described(named) for source in sources for named in source}
    for named, (split, atoms) in known.items():
        if atoms <= ATOMS // 2:
            by_split.setdefault(split, []).append((named[0], named[1], atoms))
    made = 0
    while made < number:
        source = sources[int(rng.integers(len(sources)))]
        name, smiles, by_scaffold = first = source[int(rng.integers(len(source)))]
        split, atoms = known[first]
        partners = _partners((name, smiles, atoms), by_split.get(split, []), pairs, rng)
        kept = []
        for _, partner, size in partners:
            if atoms + size <= ATOMS:
                kept.append(partner)
                atoms += size
        if kept:
            made += 1
            yield f"{name}+{len(kept)}-{made:05d}", ".".join([smiles, *kept]), by_scaffold


def _described(named: Named) -> tuple[str, int]:
    mol = Chem.AddHs(Chem.MolFromSmiles(named[1]))
    return split_of(group_of(mol, named[2])), mol.GetNumAtoms()


def _partners(
    first: tuple[str, str, int], others: Sequence[tuple[str, str, int]], pairs: bool, rng: np.random.Generator
) -> list[tuple[str, str, int]]:
    water = ("water", "O", 3)
    kind = rng.random()
    if kind < 0.4:
        return [water] * (1 if pairs else int(rng.integers(1, 9)))
    if kind < 0.6 or not others:
        return [first] * (1 if pairs else int(rng.integers(1, 20)))
    count = 1 if pairs else int(rng.integers(1, 4))
    return [others[int(k)] for k in rng.integers(len(others), size=count)]
