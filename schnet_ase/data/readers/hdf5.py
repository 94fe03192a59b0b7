"""Read HDF5 files with one group per molecule: SPICE, ANI-1, ANI-1x, ANI-2x, QM7-X, and files of the same layout.

SPICE: Eastman et al., Scientific Data 10, 11 (2023), Hartree and Bohr, gradients. ANI-1: Smith et al., Scientific Data
4, 170193 (2017), and ANI-1x: Smith et al., Scientific Data 7, 134 (2020), Hartree and Å. QM7-X: Hoja et al., Scientific
Data 8, 43 (2021), eV and Å. All others, such as files of MACE, are in eV and Å. The attribute ``units`` or ``unit`` of
a dataset takes precedence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from schnet_ase.data.labels.keys import Form, Found, Held
from schnet_ase.errors import DataError
from schnet_ase.geometry.arrays import Floats, Integers
from schnet_ase.geometry.system import Geometry

SUFFIXES = (".h5", ".hdf5", ".hdf")


class Layout(NamedTuple):
    """The names and units of a data set."""

    name: str
    positions: str
    numbers: tuple[str, ...]
    energy_unit: str
    length_unit: str
    own: Mapping[str, Form]


_LAYOUTS = (
    Layout(
        "SPICE",
        "conformations",
        ("atomic_numbers",),
        "Hartree",
        "Bohr",
        {"dft_total_energy": "energy", "dft_total_gradient": "gradient"},
    ),
    Layout(
        "ANI",
        "coordinates",
        ("atomic_numbers", "species"),
        "Hartree",
        "Å",
        {"energies": "energy", "forces": "forces", "wb97x_dz.energy": "energy", "wb97x_dz.forces": "forces"},
    ),
    Layout("QM7-X", "atXYZ", ("atNUM",), "eV", "Å", {"ePBE0+MBD": "energy", "totFOR": "forces"}),
    Layout("HDF5", "positions", ("atomic_numbers", "numbers", "species"), "eV", "Å", {}),
)
_NOT_LABELS = ("cell", "pbc")


class OpenedHdf5(NamedTuple):
    """An HDF5 file, opened to read its frames."""

    frames: Iterator[Found]
    layout: Layout
    units: Mapping[str, str]
    """The units that the datasets of the first molecule state, by their names."""


def open_hdf5(file: Path) -> OpenedHdf5:
    """Open an HDF5 file.

    Raises
    ------
    DataError
        h5py is not installed, the file is no HDF5 file, or no group has positions and elements.
    """
    with _opened(file) as content:
        first = next(_groups(content), None)
        if first is None:
            held = ", ".join(list(content)[:5])
            raise DataError(
                f"{file}: no group with positions and elements; it holds {held or 'nothing'}; expected groups as in "
                "SPICE (conformations, atomic_numbers), ANI (coordinates, species), QM7-X (atXYZ, atNUM)"
            )
        group, layout = first
        units = _units_of(group)
    return OpenedHdf5(_frames(file), layout, units)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"{file}: HDF5 needs h5py, which is not installed; pip install 'schnet_ase[hdf5]'") from error
    try:
        content = h5py.File(file, "r")
    except OSError as error:
        raise DataError(f"{file}: truncated or not an HDF5 file ({error})") from error
    with content:
        yield content


def _units_of(group: Any) -> dict[str, str]:
    """Return the units that the datasets of a molecule state in an attribute ``units`` or ``unit``, by their names."""
    return {
        name: _text(value)
        for name, dataset in _datasets(group).items()
        for key, value in dataset.attrs.items()
        if key.lower() in ("units", "unit")
    }


def _frames(file: Path) -> Iterator[Found]:
    with _opened(file) as content:
        units = dict[str, str]()
        for group, layout in _groups(content):
            for name, text in _units_of(group).items():
                if units.setdefault(name, text) != text:
                    raise DataError(
                        f"{file}: group {group.name} states {text!r} of {name}, groups before {units[name]!r}; "
                        "expected one unit, make it a file of its own"
                    )
            yield from _of_group(group, layout, f"{file}: group {group.name}")


def _groups(group: Any) -> Iterator[tuple[Any, Layout]]:
    """Yield the groups at any depth that hold molecules, in natural order of their names."""
    for layout in _LAYOUTS:
        if layout.positions in group and any(name in group for name in layout.numbers):
            yield group, layout
            return
    for name in sorted(group, key=_natural):
        if hasattr(child := group[name], "keys"):
            yield from _groups(child)


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sorting key that puts ``config_10`` after ``config_9``."""
    words = "".join(c if c.isdigit() else f" {c} " for c in name).split()
    return [(int(word), "") if word.isdigit() else (-1, word) for word in words]


def _datasets(group: Any) -> dict[str, Any]:
    """Return the datasets of a group and of its subgroup of properties, as MACE writes it."""
    own = {name: group[name] for name in group if hasattr(group[name], "shape")}
    properties = group.get("properties")
    inner = {name: properties[name] for name in properties} if hasattr(properties, "keys") else {}
    return {**own, **{name: d for name, d in inner.items() if hasattr(d, "shape")}}


def _of_group(group: Any, layout: Layout, where: str) -> Iterator[Found]:
    datasets = {name: d[()] for name, d in _datasets(group).items()}
    positions = np.asarray(datasets.pop(layout.positions), dtype=float)
    numbers = _elements(datasets.pop(next(name for name in layout.numbers if name in datasets)), where)
    one = positions.ndim == 2
    if one:
        positions, datasets = positions[None], {name: np.asarray(value)[None] for name, value in datasets.items()}
    n_frames, n_atoms = positions.shape[0], numbers.shape[-1]
    if positions.shape != (n_frames, n_atoms, 3):
        raise DataError(f"{where}: {layout.positions} has shape {positions.shape}; expected (frames, {n_atoms}, 3)")
    cells, pbc = (_per_frame(datasets.get(name), n_frames) for name in _NOT_LABELS)
    labels = {n: v for n, v in datasets.items() if n not in _NOT_LABELS and np.shape(v)[:1] == (n_frames,)}
    for k in range(n_frames):
        cell = np.zeros((3, 3)) if cells is None else np.asarray(cells[k], dtype=float).reshape(3, 3)
        periodic = np.full(3, cell.any()) if pbc is None else np.asarray(pbc[k], dtype=bool)
        held = (Held(name, _value(value[k]), own=layout.own.get(name)) for name, value in labels.items())
        yield Found(Geometry(numbers if numbers.ndim == 1 else numbers[k], positions[k], cell, periodic), tuple(held))


def _per_frame(array: Any, n_frames: int) -> NDArray[Any] | None:
    if array is None or np.asarray(array).dtype.kind in "OS":  # MACE writes "None" for what is missing
        return None
    array = np.asarray(array)
    return array if len(array) == n_frames and array.ndim > 1 else np.broadcast_to(array, (n_frames, *array.shape))


def _value(value: Any) -> Any:
    """Return a label; NaN and MACE's ``"None"`` mean that it is missing."""
    if isinstance(value, bytes):
        text = value.decode(errors="replace")
        return None if text == "None" else text
    array: Floats | Any = value
    return None if np.asarray(array).dtype.kind == "f" and np.isnan(array).all() else array


def _elements(values: Any, where: str) -> Integers:
    """Return atomic numbers, also from symbols."""
    array = np.asarray(values)
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    symbols = [_text(symbol) for symbol in array.ravel()]
    try:
        return np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.int64).reshape(array.shape)
    except KeyError as error:
        raise DataError(f"{where}: {error} is no chemical symbol; expected symbols or atomic numbers") from error


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
