"""The frames that learning begins with, and the labels that some of them have."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from schnet_ase.errors import DataError
from schnet_ase.learn.reference import Label
from schnet_ase.neighbors import Floats


def given_label(frame: Atoms) -> Label | None:
    """Energy and forces that a frame was read with; None where one is missing."""
    if frame.calc is None:
        return None
    try:
        return Label(float(frame.get_potential_energy()), np.array(frame.get_forces(apply_constraint=False)))
    except (PropertyNotImplementedError, RuntimeError):
        return None


def read_start(path: Path) -> list[Atoms]:
    """The first frames.

    Raises
    ------
    DataError
        They cannot be read, or a label is no finite number: nothing is labelled or written then.
    """
    frames = _read(path)
    for index, given in enumerate(given_label(frame) for frame in frames):
        if given is not None and not (np.isfinite(given.energy) and np.isfinite(given.forces).all()):
            raise DataError(f"{path}: frame {index} has a label that is no finite number; remove the frame")
    return frames


def _read(path: Path) -> list[Atoms]:
    try:
        return cast("list[Atoms]", ase.io.read(path, ":"))
    except Exception as error:  # ase.io's readers raise whatever their parser met
        raise DataError(f"{path}: cannot be read as ASE structures ({type(error).__name__}: {error})") from error


def moved(atoms: Atoms, positions: Floats) -> Atoms:
    """`atoms` elsewhere and at rest, with what they are otherwise: constraints, ``info``, charges, moments."""
    there: Atoms = atoms.copy()
    there.arrays.pop("momenta", None)
    there.positions = positions
    return there
