"""Read MD17 and rMD17, one molecule's frames as arrays of an ``.npz`` file; sGDML's tools also write crystals this way.

Chmiela et al., Science Advances 3, e1603015 (2017); Christensen and von Lilienfeld, Machine Learning: Science and
Technology 1, 045018 (2020).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from schnet_ase.data.labels.keys import QUANTITY_OF, Form, Found, Held, meaning
from schnet_ase.data.labels.options import LabelOptions
from schnet_ase.errors import DataError
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.geometry.system import Geometry

_OWN: Mapping[str, Form] = {"energies": "energy", "E": "energy", "forces": "forces", "F": "forces"}
"""Names of labels; those of rMD17 come before those of MD17."""
_CELLS = ("cell", "cells", "box", "boxes", "lattices", "pbc")
_PER_FRAME = ("weight", "config_weight", "config_type", "split")


def read_npz(file: Path, options: LabelOptions) -> Iterator[Found]:
    """Yield frames; the format's own names are R, z, E, F, or rMD17's coords, nuclear_charges, energies, forces.

    Only arrays that may be labels are read. A ``lattice`` has the lattice vectors as its columns (sGDML,
    `sgdml.utils.io.read_xyz`); the frames are then periodic in all directions.

    Raises
    ------
    DataError
        An array is missing, or the shapes of the arrays do not match.
    """
    with _opened(file) as archive:
        z_name, r_name = _first(archive, file, "nuclear_charges", "z"), _first(archive, file, "coords", "R")
        numbers = _numbers(_array(archive, z_name, file), z_name, file)
        coords = _array(archive, r_name, file).astype(float)
        cell = _cell(archive, file)
        own = _own_names(archive)
        wanted = _wanted(archive, own, options)
        arrays = {name: _array(archive, name, file) for name in wanted}
        others = [name for name in archive if name not in (*wanted, z_name, r_name, "lattice")]
    if numbers.ndim != 1:
        raise DataError(
            f"{file}: {z_name} has shape {numbers.shape}; expected (atoms,), one order of atoms for all frames; "
            "save frames of several orders as extxyz"
        )
    if coords.ndim != 3 or coords.shape[1:] != (len(numbers), 3):
        raise DataError(f"{file}: {r_name} has shape {coords.shape}; expected (frames, {len(numbers)}, 3)")
    for name, labels in arrays.items():
        if not labels.ndim or len(labels) != len(coords):
            n_labels = len(labels) if labels.ndim else 0
            raise DataError(
                f"{file}: {name} has {n_labels} frames and {r_name} {len(coords)}; "
                f"frame {min(n_labels, len(coords))} is the first without its partner"
            )
    pbc = np.full(3, cell.any())
    not_read = tuple(Held(name, None) for name in others)
    for index, positions in enumerate(coords):
        held = (Held(name, labels[index], own=own.get(name)) for name, labels in arrays.items())
        yield Found(Geometry(numbers, positions, cell, pbc), (*held, *not_read))


def words_of(file: Path) -> list[Held]:
    """Return what the file states in words, such as the units `e_unit` and `r_unit` that sGDML's tools write."""
    with _opened(file) as archive:
        words = []
        for name in archive:
            if "unit" in name.lower():
                value = _array(archive, name, file)
                words.append(Held(name, ", ".join(map(_text, value.ravel())) if value.dtype.kind in "SU" else value))
        return words


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _own_names(archive: Mapping[str, object]) -> Mapping[str, Form]:
    """Return the labels under the format's own names; two of one kind must agree."""
    return {name: form for name, form in _OWN.items() if name in archive}


def _wanted(archive: Mapping[str, object], own: Mapping[str, Form], options: LabelOptions) -> list[str]:
    """Return the names of the arrays to read: those named by the user, or else those that may be labels."""
    given = {"energy": options.energy_key, "forces": options.forces_key, "stress": options.stress_key}
    missing = {q for q, key in given.items() if key is None} - {QUANTITY_OF[form] for form in own.values()}
    may_be = {name for name in archive if (m := meaning(name)) and QUANTITY_OF[m.form] in missing}
    names = {*(name for name, form in own.items() if given[QUANTITY_OF[form]] is None), *given.values(), *may_be}
    return [name for name in archive if name in names or name in _PER_FRAME]


def _numbers(values: NDArray[Any], name: str, file: Path) -> Integers:
    try:
        return values.astype(np.int64)
    except ValueError:
        pass
    try:
        return np.array([atomic_numbers[str(symbol)] for symbol in values.ravel()], dtype=np.int64).reshape(
            values.shape
        )
    except KeyError as error:
        raise DataError(f"{file}: {name} holds {error}; expected atomic numbers or chemical symbols") from error


def _cell(archive: Mapping[str, NDArray[Any]], file: Path) -> Floats:
    if "lattice" not in archive:
        if strange := [name for name in archive if name.lower() in _CELLS]:
            raise DataError(
                f"{file}: holds {', '.join(strange)}, which no MD17 .npz has; expected a molecule, or the lattice "
                "vectors of all frames as columns of lattice, as in sGDML; save frames with cells as extxyz"
            )
        return np.zeros((3, 3))
    lattice = _array(archive, "lattice", file)
    if lattice.shape != (3, 3) or not np.isfinite(lattice.astype(float)).all():
        raise DataError(f"{file}: lattice has shape {lattice.shape}; expected (3, 3), the lattice vectors as columns")
    return np.ascontiguousarray(lattice.astype(float).T)


@contextmanager
def _opened(file: Path) -> Iterator[Mapping[str, NDArray[Any]]]:
    with ExitStack() as stack:
        try:
            archive = np.load(stack.enter_context(open(file, "rb")))  # np.load would leave a damaged file open
            if not isinstance(archive, Mapping):
                raise ValueError("one array, as in an .npy file")
            yield archive
        except DataError:
            raise
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error})") from error
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            raise DataError(f"{file}: truncated or not an .npz file ({error})") from error


def _array(archive: Mapping[str, NDArray[Any]], name: str, file: Path) -> NDArray[Any]:
    try:
        return archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DataError(
            f"{file}: {name} is an array of Python objects, which can run code and are not read; "
            "save it as an array of numbers or text, frames of several sizes as extxyz"
        ) from error


def _first(archive: Mapping[str, object], file: Path, *names: str) -> str:
    for name in names:
        if name in archive:
            return name
    raise DataError(f"{file}: holds {', '.join(archive)}; expected {' or '.join(names)}, as MD17 and rMD17 files do")
