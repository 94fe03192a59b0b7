"""Check whether a model was trained on given atoms, and advise the user if it was not."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.formula import Formula
from ase.geometry.minkowski_reduction import minkowski_reduce
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order

from schnet_ase.errors import RegistryError, StructureError
from schnet_ase.geometry.neighbors import neighbor_list
from schnet_ase.registry.card import Card
from schnet_ase.registry.electrons import stated_charge, stated_unpaired
from schnet_ase.registry.loading import locate_members
from schnet_ase.registry.lookup import list_models, owning_card
from schnet_ase.registry.provenance import Provenance

_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


class Taught(NamedTuple):
    """Training data of a model, according to an entry's card or a run's file."""

    name: str
    formulas: tuple[str, ...] | None
    """Chemical formulas of the training frames; None: not known."""
    periodic: bool | None
    """Whether any frame was periodic; None: not known."""
    entry: bool
    """Whether the model has a card."""
    experimental: str | None = None
    """Why the card says that it is not to be trusted in long dynamics."""


def taught(model: str) -> Taught:
    """Return what the model of this name, folder or file was trained on."""
    card = owning_card(model)
    if card is not None:
        return _of(card)
    origin = Provenance.read(locate_members(model)[0].path).origin
    return Taught(model, origin.formulas, origin.periodic, entry=False)


def formulas_behind(file: Path) -> set[str] | None:
    """Return the chemical formulas of a model's training frames from its file or its entry's card; None: unknown."""
    known = Provenance.read(file).origin.formulas
    if known is None:
        card = owning_card(file)
        known = None if card is None else card.data.formulas
    return None if known is None else set(known)


def check_forces(card: Card) -> None:
    """Refuse an entry that learned from energies alone: its forces were never compared with anything.

    Raises
    ------
    StructureError
        It is one.
    """
    if card.best.validation.force_mae is None:
        raise StructureError(f"{card.name} was not trained on forces, so it cannot move atoms; give another model")


def knows(model: Taught, atoms: Atoms) -> bool | None:
    """Return whether a model was trained on frames of this chemical formula; None if that is not known.

    For a model of periodic frames the composition counts: it knows a box of any number of its molecules.
    """
    if model.formulas is None:
        return None
    formula = atoms.get_chemical_formula()
    if not model.periodic:
        return formula in model.formulas
    return _reduced(formula) in {_reduced(known) for known in model.formulas}


def strange(model: Taught, atoms: Atoms) -> str | None:
    """Return a warning if a model was not trained on frames of this formula, with the name of an entry that was."""
    if knows(model, atoms) is not False:
        return None
    known, formula = model.formulas or (), atoms.get_chemical_formula()
    this = "this entry" if model.entry else "this model"
    if len(known) == 1:
        text = f"{formula} is not what {this} knows, {known[0]}"
    else:
        count = _WORDS[len(known)] if len(known) < len(_WORDS) else f"{len(known):,}"
        kind = "compositions" if model.periodic else "molecules"
        listed = f" ({', '.join(known)})" if len(known) <= 12 else ""
        text = f"{formula} is none of the {count} {kind} {this} knows{listed}"
    others = entries_for(model, atoms)
    helps = (
        f"{' and '.join(others)} {'know' if len(others) > 1 else 'knows'} it" if others else "its forces are a guess"
    )
    return f"{text}; {helps}"


def entries_for(model: Taught, atoms: Atoms) -> list[str]:
    """Return the names of other entries trained on forces of this formula, those of the fewest formulas first."""
    cards: list[Card] = []
    with contextlib.suppress(RegistryError):  # a broken card must not suppress the rest of the message
        cards = list_models()
    found = [c for c in cards if knows(_of(c), atoms) and c.best.validation.force_mae is not None]
    found.sort(key=lambda c: (len(c.data.formulas or ()), c.name))
    return [c.name for c in found if not (model.entry and c.name == model.name)]


def electrons(model: Taught, atoms: Atoms) -> str | None:
    """Return a warning about a charge or unpaired electrons, which a network does not see; None if there are none.

    A charge is that of ``atoms.info`` or the sum of the initial charges. An odd number of electrons is noticed where
    the training frames had even ones only, according to their formulas.
    """
    charge, unpaired = stated_charge(atoms), stated_unpaired(atoms)
    stated = [f"a charge of {charge:+d} e"] if charge else []
    stated += [f"{unpaired} unpaired electron{'s' if unpaired > 1 else ''}"] if unpaired else []
    blind = f"the network sees elements and positions only and takes it for what {model.name} was trained on"
    if stated:
        return f"STRUCTURE states {' and '.join(stated)}; {blind}"
    even = bool(model.formulas) and not any(_electrons(known) % 2 for known in model.formulas or ())
    if even and not atoms.pbc.any() and int(atoms.numbers.sum()) % 2:
        return f"STRUCTURE is a radical or an ion: an uncharged {atoms.symbols} has an odd number of electrons; {blind}"
    return None


def images(model: Taught, atoms: Atoms, cutoff: float | None, *, moving: bool) -> str | None:
    """Return a warning if near periodic images are unknown to the model, or if `moving` and images move in parallel."""
    if cutoff is None or not atoms.pbc.any():
        return None
    if model.periodic is False and connected_to_images(atoms, cutoff):
        return (
            f"STRUCTURE is periodic and its molecules see images of each other within the cutoff of {cutoff:g} Å, but "
            f"{model.name} was trained on free molecules; set pbc to False, or give a larger cell"
        )
    repeat = shortest_repeat(atoms)
    if not moving or repeat >= cutoff:
        return None
    return (
        f"the cell repeats after {repeat:.2f} Å, within the cutoff of {cutoff:g} Å: atoms see their own images, which "
        "move as they do; repeat the cell"
    )


def advice(model: Taught, atoms: Atoms, gentler: str) -> str:
    """Return advice for a run that was stopped; `gentler` applies if the model knows these atoms."""
    formula = atoms.get_chemical_formula()
    others = entries_for(model, atoms)
    if knows(model, atoms):
        return gentler
    if others:
        return f"give {others[0]}, which knows {formula}"
    return (
        f"no entry that is installed knows {formula}: schnet-ase learn makes an ensemble that does, with labels from a "
        "reference method"
    )


def shortest_repeat(atoms: Atoms) -> float:
    """Return the length of the shortest translation that maps periodic atoms onto their images, Å."""
    reduced, _ = minkowski_reduce(atoms.cell.complete(), atoms.pbc)
    return float(np.linalg.norm(reduced[atoms.pbc], axis=1).min())


def connected_to_images(atoms: Atoms, cutoff: float) -> bool:
    """Return whether an atom reaches its own image through a chain of atoms that are nearer to each other than
    `cutoff`, Å.

    It does not if molecules, wrapped into the cell or not, are farther than that from each other's images.
    """
    i, j, shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    vectors = atoms.positions[j] - atoms.positions[i] + shifts @ atoms.cell.array
    near = np.einsum("pk,pk->p", vectors, vectors) < cutoff**2
    i, j, shifts = i[near], j[near], np.rint(shifts[near]).astype(np.int64)
    if (i == j).any():
        return True
    n_atoms = len(atoms)
    first = {(int(a), int(b)): s for a, b, s in zip(i, j, shifts, strict=True)}
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(n_atoms, n_atoms)).tocsr()
    offsets, seen = np.zeros((n_atoms, 3), dtype=np.int64), np.zeros(n_atoms, dtype=bool)
    for root in range(n_atoms):
        if seen[root]:
            continue
        order, before = breadth_first_order(graph, root)
        seen[order] = True
        for atom in order[1:].tolist():
            offsets[atom] = offsets[before[atom]] + first[int(before[atom]), atom]
    return bool((offsets[j] - offsets[i] != shifts).any())


def _of(card: Card) -> Taught:
    return Taught(card.name, card.data.formulas, any(card.structure.pbc), True, card.experimental)


def _electrons(formula: str) -> int:
    """Return the number of electrons of an uncharged molecule."""
    return sum(atomic_numbers[symbol] * count for symbol, count in Formula(formula).count().items())


def _reduced(formula: str) -> str:
    return Formula(formula).reduce()[0].format("hill")
