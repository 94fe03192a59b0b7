"""The layout of a store, a folder of plain arrays, and the frames that are read from it when they are needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schnet_ase.data.frames import Frame
from schnet_ase.data.lazy import Lazy
from schnet_ase.geometry.arrays import Integers
from schnet_ase.geometry.neighbors import HalfNeighbors
from schnet_ase.geometry.system import Geometry


class Array(NamedTuple):
    """Rows of one type in one file."""

    dtype: str
    shape: tuple[int, ...] = ()
    """Shape of a row."""


ARRAYS: Mapping[str, Array] = {
    # A row per frame. `atoms` and `pairs` are how many there are up to its end.
    "atoms": Array("<i8"),
    "pairs": Array("<i8"),
    "cell": Array("<f8", (3, 3)),
    "pbc": Array("?", (3,)),
    "energy": Array("<f8"),
    "has_energy": Array("?"),
    "has_forces": Array("?"),
    "stress": Array("<f8", (6,)),
    "has_stress": Array("?"),
    "weight": Array("<f8"),
    "config_type": Array("<i4"),  # which of those in the table beside; so is the split
    "split": Array("<i4"),
    # A row per atom.
    "numbers": Array("u1"),
    "positions": Array("<f8", (3,)),
    "forces": Array("<f8", (3,)),
    # A row per pair.
    "first": Array("<i4"),
    "second": Array("<i4"),
    "shifts": Array("<i4", (3,)),
}
NAMES = "names.json"


class Names(NamedTuple):
    """Names that frames refer to by their number, in the order in which they first occur."""

    config_type: dict[str, int]
    split: dict[str, int]


class StoredFrames(Lazy[Frame]):
    """The frames of a store, in the order of their file, with the numbers that were read.

    Parameters
    ----------
    folder
        Folder written by `write_store`.
    cutoff
        Cutoff of its pairs, Å; None: every pair.
    chosen
        Indices of the frames to use; None: all.
    """

    def __init__(self, folder: Path, cutoff: float | None, chosen: Integers | None = None) -> None:
        self.cutoff, self._folder = cutoff, folder
        self._arrays = {name: _mapped(folder / name, array) for name, array in ARRAYS.items()}
        config_types, splits = json.loads((folder / NAMES).read_text(encoding="utf-8"))
        self._config_types: list[str] = config_types
        self._splits: list[str] = splits
        self._chosen = np.arange(len(self._arrays["atoms"])) if chosen is None else chosen
        super().__init__(self._frame, len(self._chosen))

    def subset(self, indices: Integers) -> StoredFrames:
        """Return the frames of some indices."""
        return StoredFrames(self._folder, self.cutoff, self._chosen[indices])

    def neighbors(self, index: int) -> HalfNeighbors:
        """Return the pairs of a frame."""
        rows = self._rows("pairs", int(self._chosen[index]))
        first, second, shifts = (self._arrays[name][rows].astype(np.int64) for name in ("first", "second", "shifts"))
        return HalfNeighbors(first, second, shifts)

    def _frame(self, chosen: int) -> Frame:
        index = int(self._chosen[chosen])
        a, rows = self._arrays, self._rows("atoms", index)
        numbers = a["numbers"][rows].astype(np.int64)
        return Frame(
            Geometry(numbers, a["positions"][rows], a["cell"][index], a["pbc"][index]),
            float(a["energy"][index]) if a["has_energy"][index] else None,
            a["forces"][rows] if a["has_forces"][index] else None,
            a["stress"][index] if a["has_stress"][index] else None,
            float(a["weight"][index]),
            self._config_types[a["config_type"][index]],
            self._splits[a["split"][index]],
        )

    def _rows(self, counted: str, index: int) -> slice:
        ends = self._arrays[counted]
        return slice(int(ends[index - 1]) if index else 0, int(ends[index]))


def _mapped(file: Path, array: Array) -> NDArray[Any]:
    if not file.stat().st_size:  # which cannot be mapped
        return np.empty((0, *array.shape), array.dtype)
    # Copy on write, and not read-only, of which torch makes tensors with a warning.
    return np.asarray(np.memmap(file, array.dtype, mode="c")).reshape(-1, *array.shape)
