"""How near the surroundings of atoms are to those in the training frames of an entry, in its network's own features."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from scipy.spatial.distance import cdist

from schnet_ase.errors import RegistryError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.inference.representation import representations
from schnet_ase.networks import SchNet
from schnet_ase.output.files import sha256
from schnet_ase.registry.checkpoint import read_tensors, write_tensors
from schnet_ase.registry.loading import load_model
from schnet_ase.registry.lookup import owning_card
from schnet_ase.registry.references import ENVIRONMENTS_FILE

KIND = "set of environments"
NAMED = 4
"""Number of atoms that a message names."""


class Environments(NamedTuple):
    """Reference environments of an entry."""

    member: str
    """Name of the member whose representation is used, such as ``fold-2``."""
    references: dict[int, Floats]
    """(K, F) representations of K atoms of the training frames, by atomic number."""
    limits: dict[int, float]
    """Distance from the nearest reference that 1 in 1,000 atoms of other such frames exceeds, by atomic number."""

    def distances(self, atoms: Atoms, model: SchNet) -> Floats:
        """Return the distance (N,) of each atom from the nearest reference of its element, in units of its limit.

        An atom of an element without references is at an infinite distance.
        """
        (features,) = representations([atoms], model)
        found = np.full(len(atoms), np.inf)
        for z, references in self.references.items():
            chosen = atoms.numbers == z
            if chosen.any():
                found[chosen] = cdist(features[chosen], references).min(axis=1) / self.limits[z]
        return found


class Nearness(NamedTuple):
    """How near a structure is to the training frames."""

    symbols: tuple[str, ...]
    distances: Floats
    """(N,) see `Environments.distances`."""

    @property
    def largest(self) -> float:
        """Distance of the atom that is farthest from all references."""
        return float(self.distances.max())

    @property
    def familiar(self) -> bool:
        """Whether no atom is beyond the limit."""
        return self.largest <= 1.0

    def line(self) -> str:
        """Return in one line how near the nearest training environments are."""
        order = np.argsort(-self.distances)
        name = f"{self.symbols[order[0]]}{order[0]}"
        if self.familiar:
            return f"like the training frames: the farthest atom, {name}, is at {self.largest:.2f} of the usual limit"
        far = [i for i in order if self.distances[i] > 1.0]
        names = ", ".join(f"{self.symbols[i]}{i}" for i in far[:NAMED])
        more = f" and {len(far) - NAMED} more" if len(far) > NAMED else ""
        return (
            f"unlike the training frames: the surroundings of {names}{more}; the nearest known to {name} are at "
            f"{self.largest:.1f} times the distance that 1 in 1,000 training atoms exceeds, so forces there are a guess"
        )


def nearness(model: str | os.PathLike[str], atoms: Atoms) -> Nearness | None:
    """Compare the surroundings of atoms with the reference environments of an entry.

    Parameters
    ----------
    model
        Entry, or a model that belongs to one.
    atoms
        Structure.

    Returns
    -------
    Nearness or None
        None if the entry has no reference environments, or the model belongs to no entry.

    Raises
    ------
    RegistryError
        The file of the environments is not that of the card.
    """
    look = comparison(model)
    return None if look is None else look(atoms)


def comparison(model: str | os.PathLike[str]) -> Callable[[Atoms], Nearness] | None:
    """Return the function that compares any atoms as `nearness` does; files are read once.

    Raises
    ------
    RegistryError
        See `nearness`.
    """
    card = owning_card(model)
    if card is None or card.environments is None:
        return None
    file = card.path / ENVIRONMENTS_FILE
    if not file.is_file() or sha256(file) != card.environments.sha256:
        raise RegistryError(f"{file}: missing, or its SHA-256 is not the one on the card; get the entry again")
    known = read_environments(file)
    network = load_model(card.path / f"{known.member}.safetensors")
    return lambda atoms: Nearness(tuple(atoms.symbols), known.distances(atoms, network))


def write_environments(known: Environments, file: str | os.PathLike[str]) -> None:
    """Write reference environments in half precision, atomically."""
    tensors = {str(z): torch.from_numpy(x.astype(np.float16)) for z, x in known.references.items()}
    limits = {str(z): limit for z, limit in known.limits.items()}
    write_tensors(file, tensors, KIND, {"member": known.member, "limits": limits})


def read_environments(file: str | os.PathLike[str]) -> Environments:
    """Read a file of `write_environments`.

    Raises
    ------
    CheckpointError
        The file cannot be read.
    """
    tensors, header = read_tensors(file, KIND)
    references = {int(z): tensor.double().numpy() for z, tensor in tensors.items()}
    return Environments(header["member"], references, {int(z): float(v) for z, v in header["limits"].items()})
