"""A few numbers per geometry that are equal for equal structures, and similar for similar ones."""

from __future__ import annotations

import numpy as np

from schnet_ase.data.summary.energies import Compositions
from schnet_ase.data.summary.flat import Bools, Flat
from schnet_ase.geometry.arrays import Floats, Integers

N_NUMBERS = 6


def wraps(flat: Flat) -> Bools:
    """Return (F,) whether a frame is compared as a crystal, in its cell."""
    volume = np.abs(np.linalg.det(flat.cell))
    return np.asarray(flat.pbc.any(axis=1) & (volume > 1e-6))


def kinds(flat: Flat, made_of: Compositions) -> Integers:
    """Return (F,) the number of each frame's kind: its composition, and whether it is periodic."""
    return np.asarray(2 * made_of.of + wraps(flat), dtype=np.int64)


def fingerprints(flat: Flat) -> Floats:
    """Return numbers in Å that change by about as much as the atoms move, (F, 6).

    For a molecule they are the singular values of its centred positions, with equal weights and with weights by atomic
    number, divided by the square root of the number of atoms. By Mirsky's inequality, those of one weighting change
    together by at most the root mean square of the displacements. They do not change when the molecule is rotated,
    moved, mirrored or renumbered. For a periodic frame they are projections of sines and cosines of its fractional
    coordinates on six fixed random directions, which do not change when an atom moves by a cell vector.
    """
    found = np.zeros((len(flat.index), N_NUMBERS))
    periodic = wraps(flat)
    for columns, weights in ((slice(0, 3), np.ones(len(flat.numbers))), (slice(3, 6), 1.0 / np.sqrt(flat.numbers))):
        found[:, columns] = _singular_values(flat, weights)
    if periodic.any():
        found[periodic] = _projections(flat)[periodic]
    return found


def _singular_values(flat: Flat, weights: Floats) -> Floats:
    middle = flat.sums(weights[:, None] * flat.positions) / flat.sums(weights)[:, None]
    away = (flat.positions - middle[flat.frame]) * np.sqrt(weights)[:, None]
    gram = flat.sums(away[:, :, None] * away[:, None, :]) / flat.n_atoms[:, None, None]
    return np.asarray(np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0.0)))


def _projections(flat: Flat) -> Floats:
    box = np.where(wraps(flat)[:, None, None], flat.cell, np.eye(3))
    lengths = np.linalg.norm(box, axis=2)
    fractional = np.einsum("ak,akl->al", flat.positions, np.linalg.inv(box)[flat.frame])
    waves = np.concatenate([np.cos(2.0 * np.pi * fractional), np.sin(2.0 * np.pi * fractional)], axis=1)
    waves *= np.tile(lengths / (2.0 * np.pi), 2)[flat.frame]
    place = np.arange(len(flat.numbers)) - np.repeat(flat.start[:-1], flat.n_atoms)
    directions = np.random.default_rng(0).normal(size=(int(place.max()) + 1, 6, N_NUMBERS))
    # One number at a time, because the directions of all atoms together would take as much memory as the frames.
    parts = [flat.sums(np.einsum("ac,ac->a", waves, directions[place, :, n])) for n in range(N_NUMBERS)]
    return 0.5 * np.stack(parts, axis=1) / np.sqrt(flat.n_atoms)[:, None]
