"""The structure that an entry brings along."""

from __future__ import annotations

import os
from pathlib import Path

from ase import Atoms

from schnet_ase.errors import StructureError
from schnet_ase.registry.lookup import find_card, get_card, is_file


def structure(name: str | os.PathLike[str]) -> Atoms:
    """Return the structure of an entry, relaxed with its ensemble, as a start for calculations.

    Parameters
    ----------
    name
        Registry name, such as ``"rmd17-ethanol"``, one of its members, such as ``"rmd17-ethanol/fold-2"``, or the
        folder of an entry.

    Returns
    -------
    ase.Atoms
        New atoms (Å) with the entry's cell and periodicity, without a calculator.

    Raises
    ------
    RegistryError
        There is no such entry.
    StructureError
        `name` is a file or a folder that is no entry.

    Examples
    --------
    >>> structure("rmd17-ethanol").get_chemical_formula()
    'C2H6O'
    """
    if card := find_card(name):
        return card.structure.atoms()
    if is_file(name) or Path(name).is_dir():
        what = "is no registry entry" if Path(name).is_dir() else "is a file"
        raise StructureError(f"{name} {what} and has no molecule of its own; give a structure")
    return get_card(str(name).partition("/")[0]).structure.atoms()
