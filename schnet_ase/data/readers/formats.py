"""Choose the reader of a file by its name, and find the units that the file states."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from glob import glob
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from schnet_ase.data.labels.chooser import candidates
from schnet_ase.data.labels.file_units import Stated, Statement, resolve_units, stated_units
from schnet_ase.data.labels.keys import Found, Held, Quantity
from schnet_ase.data.labels.named_units import unit_in_name
from schnet_ase.data.labels.options import UNSAID, LabelOptions
from schnet_ase.data.readers import deepmd, hdf5, qm9
from schnet_ase.data.readers.ase_files import metadata_of, read_ase, read_db
from schnet_ase.data.readers.npz import read_npz, words_of
from schnet_ase.errors import DataError

FORMATS = (
    ".npz (MD17, rMD17, sGDML), .db (ASE, ISO17, SchNetPack), .h5 or .hdf5 (SPICE, ANI, QM7-X), extxyz and whatever "
    "else ase.io reads, folders of DeePMD-kit or of raw QM9"
)
_PLAIN = (".xyz", ".extxyz", ".gz", ".traj", ".json")


class Format(NamedTuple):
    """A file that is being read, with the units of its format."""

    frames: Iterator[Found]
    energy_unit: str
    """Unit of energy of its format, if the file states none."""
    name: str
    stated: Stated = Stated()
    length_unit: str = "Å"
    notes: tuple[str, ...] = ()
    """Sentences that a user should know about the file."""


def format_of(path: Path, files: list[Path], options: LabelOptions, excluded: frozenset[int]) -> Format:
    """Determine the format of a file, or of QM9's `files`; read its first frame to find the units that it states.

    Raises
    ------
    DataError
        The first frame cannot be read.
    """
    return _stated_in_names(path, _format_of(path, files, options, excluded), options)


def _format_of(path: Path, files: list[Path], options: LabelOptions, excluded: frozenset[int]) -> Format:
    suffix = path.suffix.lower()
    if str(path) == qm9.PACKAGE:
        return Format(qm9.read_package(files, options.energy_key, excluded), "Hartree", "qm9pack")
    if path.is_dir() and deepmd.systems_in(path):
        return Format(deepmd.read_deepmd(path), "eV", "DeePMD-kit")
    if qm9.is_raw(path):
        return Format(qm9.read_raw(path, options.energy_key, excluded), "Hartree", "raw QM9")
    if suffix == ".npz":
        stated = stated_units(words_of(path), options, str(path))
        return Format(read_npz(path, options), "kcal/mol", "MD17 .npz", stated)
    if suffix == ".db":
        return _of_db(path, options)
    if suffix in hdf5.SUFFIXES:
        with read_errors(path, "HDF5"):
            opened = hdf5.open_hdf5(path)
        layout = opened.layout
        form = Format(opened.frames, layout.energy_unit, layout.name, length_unit=layout.length_unit)
        return _stated_by_name(path, form, opened.units, opened.units.get(layout.positions), options)
    _refuse_cp2k(path)
    return _stated_in_frames(path, Format(read_ase(path), "eV", "ASE"), options)


def _refuse_cp2k(path: Path) -> None:
    """Refuse output of CP2K, which ASE would take for Quantum ESPRESSO's by its suffix, and find nothing in it."""
    with read_errors(path, "ASE"), open(path, "rb") as stream:
        if b"CP2K|" in stream.read(10_000):
            raise DataError(
                f"{path}: output of CP2K, which ase.io does not read; make a folder of DeePMD-kit of it by dpdata "
                "(LabeledSystem(..., fmt='cp2k/output').to('deepmd/npy', ...)), or extxyz of its trajectories"
            )


def _of_db(path: Path, options: LabelOptions) -> Format:
    form = Format(read_db(path), "eV", "ASE .db")
    with read_errors(path, form.name):
        metadata = metadata_of(path)
    if "_property_unit_dict" not in metadata:
        return _stated_in_metadata(path, _stated_in_frames(path, form, options), metadata, options)
    form = form._replace(name="SchNetPack .db", notes=_of_atomrefs(metadata))
    units = {name: str(unit) for name, unit in metadata["_property_unit_dict"].items()}
    return _stated_by_name(path, form, units, metadata.get("_distance_unit"), options)


def _stated_in_metadata(path: Path, form: Format, metadata: Mapping[str, Any], options: LabelOptions) -> Format:
    """Add the units that the metadata state, if they are not those of the format and the frames state none."""
    units = metadata.get("units")
    each = {f"{name}_unit": unit for name, unit in units.items()} if isinstance(units, Mapping) else {}
    held = [Held(name, value, "metadata") for name, value in {**metadata, **each}.items() if isinstance(value, str)]
    stated = stated_units(held, options, str(path), free_text=True)
    plain = resolve_units(UNSAID, Stated(), str(path), assumed_energy=form.energy_unit, assumed_length=form.length_unit)
    said = resolve_units(UNSAID, stated, str(path), assumed_energy=form.energy_unit, assumed_length=form.length_unit)
    return form if form.stated != Stated() or said[:5] == plain[:5] else form._replace(stated=stated)


def _of_atomrefs(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    names = [name for name, values in (metadata.get("atomrefs") or {}).items() if values is not None]
    if not names:
        return ()
    return (
        f"the metadata have atomrefs of {', '.join(names)}, which SchNetPack subtracts when it trains (RemoveOffsets) "
        "but which are not subtracted here, because training fits the references of the elements",
    )


def _stated_by_name(
    path: Path, form: Format, units: Mapping[str, str], length: str | None, options: LabelOptions
) -> Format:
    """Add the units that the file states for each of its quantities by name."""
    with read_errors(path, form.name):
        first = next(form.frames, None)
    if first is None:
        return form

    def of(quantity: Quantity) -> Statement | None:
        for one, _ in candidates(quantity, first, options):
            if one.name in units:
                return Statement(f"the unit of {one.words}", units[one.name])
        return None

    at = None if length is None else Statement("the unit of length", length)
    return form._replace(
        frames=chain([first], form.frames), stated=Stated(of("energy"), of("forces"), at, of("stress"))
    )


def _stated_in_names(path: Path, form: Format, options: LabelOptions) -> Format:
    """Add the units in the names of its labels, ``energy_hartree``, if the file states no others."""
    with read_errors(path, form.name):
        first = next(form.frames, None)
    if first is None:
        return form

    def of(quantity: Quantity, stated: Statement | None) -> Statement | None:
        for one, meant in candidates(quantity, first, options) if stated is None else ():
            if text := unit_in_name(one.name, meant):
                return Statement(f"the name {one.words}", text)
        return stated

    energy, force, length, stress = form.stated
    said = Stated(of("energy", energy), of("forces", force), length, of("stress", stress))
    return form._replace(frames=chain([first], form.frames), stated=said)


def _stated_in_frames(path: Path, form: Format, options: LabelOptions) -> Format:
    """Add the units that the first frame states; the other frames must not contradict them."""
    with read_errors(path, form.name):
        first = next(form.frames, None)
    if first is None:
        return form
    stated = stated_units(first.held, options, str(path))

    def frames() -> Iterator[Found]:
        for index, found in enumerate(chain([first], form.frames)):
            if index and any("unit" in one.name.lower() for one in found.held):
                other = stated_units(found.held, options, f"{path}: frame {index}")
                if other != stated:
                    raise DataError(f"{path}: frame {index} states other units than frame 0; make it a file of its own")
            yield found

    return form._replace(frames=frames(), stated=stated)


@contextmanager
def read_errors(path: Path, name: str) -> Iterator[None]:
    """Turn any error of a reader into a DataError of one line."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # ase.io's readers raise errors of every kind
        others = "" if name != "ASE" or path.suffix.lower() in _PLAIN else f"; formats that are read: {FORMATS}"
        raise DataError(f"{path}: cannot be read as {name} ({type(error).__name__}: {error}){others}") from error


def files_of(path: str | os.PathLike[str]) -> list[Path]:
    """Return the files that `read_dataset` reads for a path: one, except for a pattern, a folder, and QM9's package.

    Raises
    ------
    DataError
        A file does not exist.
    """
    return [file for part in parts_of(path) for file in _files_of_part(part)]


def parts_of(path: str | os.PathLike[str]) -> list[Path]:
    """Return what is read one after the other for a path: the files and folders that match a pattern, or the path
    itself.

    Raises
    ------
    DataError
        Nothing matches the pattern.
    """
    file = Path(path)
    if not is_pattern(path):
        return [file]
    if found := sorted(file.parent / name for name in glob(file.name, root_dir=file.parent)):
        return found
    raise DataError(f"{file}: no file fits this pattern; correct it")


def _files_of_part(file: Path) -> list[Path]:
    if str(file) == qm9.PACKAGE:
        return qm9.package_files()
    if file.is_dir():
        return deepmd.files_of_systems(file) or qm9.raw_files(file)
    if not file.is_file():
        raise DataError(
            f"{file}: no such file; expected reference data ({FORMATS}, or {qm9.PACKAGE!r} for the package)"
        )
    return [file]


def is_pattern(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a pattern of file names."""
    return any(sign in Path(path).name for sign in "*?[") and not Path(path).exists()


def is_qm9(path: Path) -> bool:
    """Return whether a path is QM9, whose molecules have numbers."""
    return str(path) == qm9.PACKAGE or qm9.is_raw(path)
