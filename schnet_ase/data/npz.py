"""MD17 and rMD17: one molecule's frames as the arrays of an ``.npz`` file.

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
from numpy.typing import NDArray

from schnet_ase.data.frames import Frame
from schnet_ase.data.labels import scalar
from schnet_ase.errors import DataError
from schnet_ase.neighbors import Geometry


def read_npz(file: Path, energy_key: str | None, forces_key: str | None) -> Iterator[Frame]:
    """Frames in the file's units; its own names are R, z, E, F, or rMD17's coords, nuclear_charges, energies, forces.

    Raises
    ------
    DataError
        No such arrays, or arrays of shapes that do not go together.
    """
    with _opened(file) as archive:
        z_name, r_name = _first(archive, file, "nuclear_charges", "z"), _first(archive, file, "coords", "R")
        e_name = energy_key or ("energies" if "energies" in archive else "E")
        f_name = forces_key or ("forces" if "forces" in archive else "F")
        numbers, coords = archive[z_name].astype(np.int64), archive[r_name].astype(float)
        energies = archive[e_name].astype(float) if e_name in archive else None
        forces = archive[f_name].astype(float) if f_name in archive else None
    if numbers.ndim != 1:
        raise DataError(f"{file}: {z_name} has shape {numbers.shape}; expected (atoms,)")
    if coords.ndim != 3 or coords.shape[1:] != (len(numbers), 3):
        raise DataError(f"{file}: {r_name} has shape {coords.shape}; expected (frames, {len(numbers)}, 3)")
    for name, labels in ((e_name, energies), (f_name, forces)):
        if labels is not None and len(labels) != len(coords):
            raise DataError(
                f"{file}: {name} has {len(labels)} frames and {r_name} {len(coords)}; "
                f"frame {min(len(labels), len(coords))} is the first without its partner"
            )
    cell, pbc = np.zeros((3, 3)), np.zeros(3, dtype=bool)
    for index, positions in enumerate(coords):
        energy = None if energies is None else scalar(energies[index], file, index)
        yield Frame(Geometry(numbers, positions, cell, pbc), energy, None if forces is None else forces[index])


def stated_unit(file: Path) -> str | None:
    """The unit of the energies by the file's own `e_unit`, as sGDML's tools write it; None where there is none.

    Raises
    ------
    DataError
        Its `r_unit` is not Å.
    """
    with _opened(file) as archive:
        length, energy = (str(archive[name]) if name in archive else None for name in ("r_unit", "e_unit"))
    if length not in (None, "Ang", "Angstrom", "Å"):
        raise DataError(f"{file}: r_unit is {length!r}; expected Å, convert the file")
    return energy


@contextmanager
def _opened(file: Path) -> Iterator[Mapping[str, NDArray[Any]]]:
    with ExitStack() as stack:
        try:
            yield np.load(stack.enter_context(open(file, "rb")))  # by itself it leaves a damaged file open
        except DataError:
            raise
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error})") from error
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            raise DataError(f"{file}: truncated or not an .npz file ({error})") from error


def _first(archive: Mapping[str, object], file: Path, *names: str) -> str:
    for name in names:
        if name in archive:
            return name
    raise DataError(f"{file}: holds {', '.join(archive)}; expected {' or '.join(names)}, as MD17 and rMD17 files do")
