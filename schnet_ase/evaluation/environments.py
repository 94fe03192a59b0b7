"""Choose the reference environments of an entry from its training frames, and the distances that are usual."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial.distance import cdist

from schnet_ase.data import Dataset
from schnet_ase.errors import DataError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.inference.representation import representations
from schnet_ase.output.files import sha256
from schnet_ase.registry.card import Card, read_card, write_card
from schnet_ase.registry.checkpoint import load_checkpoint
from schnet_ase.registry.environments import Environments, write_environments
from schnet_ase.registry.references import ENVIRONMENTS_FILE, ReferenceEnvironments

PER_ELEMENT = 128
"""Default number of references of an element: for 64 features 16 kB."""
HELD_OUT = 0.2
"""Share of the frames that the usual distances are measured on, which give no references."""
USUAL = 0.999
"""Share of the atoms that are nearer than the limit."""
MOST_FRAMES, MOST_ATOMS = 20_000, 100_000
"""Largest numbers of frames, and of atoms of an element, that are looked at."""


def add_environments(card: Card, dataset: Dataset, *, per_element: int = PER_ELEMENT, command: str = "") -> Card:
    """Choose the reference environments of an entry, and write their file and its hash on the card.

    The references of an element are atoms of the frames, each the farthest from those before it in the representation
    of the best member (its features before the readout). So they cover all surroundings that occur, however rare. The
    limit of an element is the distance from the nearest reference that 1 in 1,000 atoms of held-out frames exceeds.

    Parameters
    ----------
    card
        Card of the entry.
    dataset
        The entry's training frames.
    per_element
        Largest number of references of an element.
    command
        Command that makes them, for the card.

    Returns
    -------
    Card
        The new card.

    Raises
    ------
    DataError
        There are fewer than 10 frames, or they lack an element of the entry.
    OSError
        The entry's folder cannot be written; the old card is kept.
    """
    if len(dataset.frames) < 10:
        raise DataError(f"{dataset.source}: {len(dataset.frames)} frames; give at least 10 of the training frames")
    best = card.best.file
    model = load_checkpoint(card.path / best)
    order = np.random.default_rng(0).permutation(len(dataset.frames))[:MOST_FRAMES]
    frames = [dataset.frames[i].atoms() for i in order]
    held_out = max(2, round(HELD_OUT * len(frames)))
    numbers = [np.concatenate([atoms.numbers for atoms in some]) for some in (frames[held_out:], frames[:held_out])]
    features = [np.concatenate(representations(some, model)) for some in (frames[held_out:], frames[:held_out])]
    references, limits = {}, {}
    for z in model.elements or ():
        known, others = (x[n == z][:MOST_ATOMS] for x, n in zip(features, numbers, strict=True))
        if not len(known) or not len(others):
            raise DataError(f"{dataset.source}: too few atoms of atomic number {z}; give the entry's training frames")
        chosen = farthest(known, per_element).astype(np.float16).astype(np.float64)
        usual = np.quantile(cdist(others, chosen).min(axis=1), USUAL)
        # A set in which all surroundings are equal has no width; rounding must not be called unfamiliar.
        references[z], limits[z] = chosen, max(float(usual), 1e-2 * float(np.abs(chosen).max()))
    file = card.path / ENVIRONMENTS_FILE
    write_environments(Environments(Path(best).stem, references, limits), file)
    described = ReferenceEnvironments(sha256(file), per_element, len(frames), dataset.source, command)
    write_card(replace(card, environments=described), card.path)
    return read_card(card.path)


def farthest(points: Floats, count: int) -> Floats:
    """Return up to `count` of the (n, F) points, each the farthest from those before it; the first is the one farthest
    from the mean."""
    chosen = [int(np.argmax(np.linalg.norm(points - points.mean(axis=0), axis=1)))]
    nearest = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return points[chosen]
