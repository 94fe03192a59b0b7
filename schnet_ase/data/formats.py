"""Which reader reads what, by the name of a file and by what it states of its units."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from schnet_ase.data import qm9
from schnet_ase.data.ase_files import read_ase, read_db
from schnet_ase.data.file_units import Stated, stated_units
from schnet_ase.data.keys import Found
from schnet_ase.data.npz import read_npz, words_of
from schnet_ase.data.options import LabelOptions
from schnet_ase.errors import DataError


class Format(NamedTuple):
    """A file that is being read."""

    frames: Iterator[Found]
    energy_unit: str
    """That its format has where the file states none."""
    name: str
    stated: Stated = Stated()


def format_of(path: Path, files: list[Path], options: LabelOptions, excluded: frozenset[int]) -> Format:
    """The format of a file, or of QM9's `files`, whose first frame may be read to see what it states.

    Raises
    ------
    DataError
        Its first frame cannot be read.
    """
    if str(path) == qm9.PACKAGE:
        return Format(qm9.read_package(files, options.energy_key, excluded), "Hartree", "qm9pack")
    if qm9.is_raw(path):
        return Format(qm9.read_raw(path, options.energy_key, excluded), "Hartree", "raw QM9")
    if path.suffix.lower() == ".npz":
        stated = stated_units(words_of(path), options, str(path))
        return Format(read_npz(path, options), "kcal/mol", "MD17 .npz", stated)
    if path.suffix.lower() == ".db":
        return Format(read_db(path), "eV", "ASE .db")
    return _stated_in_frames(path, Format(read_ase(path), "eV", "ASE"), options)


def _stated_in_frames(path: Path, form: Format, options: LabelOptions) -> Format:
    """The same with the units that its first frame states, which all others must not contradict."""
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
    """Whatever a reader meets in a file becomes a DataError of one line."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # ase.io's readers raise whatever their parser met
        raise DataError(f"{path}: cannot be read as {name} ({type(error).__name__}: {error})") from error


def files_of(path: str | os.PathLike[str]) -> list[Path]:
    """The files that `read_dataset` reads for a path: one, but for a pattern, and QM9 in the package or in a folder.

    Raises
    ------
    DataError
        They are not there.
    """
    file = Path(path)
    if str(path) == qm9.PACKAGE:
        return qm9.package_files()
    if file.is_dir():
        return qm9.raw_files(file)
    if is_pattern(path):
        if found := sorted(file.parent / name for name in glob(file.name, root_dir=file.parent)):
            return found
        raise DataError(f"{file}: no file fits this pattern; correct it")
    if not file.is_file():
        raise DataError(
            f"{file}: no such file; expected reference data (.npz, .db, .extxyz, ..., a folder of dsgdb9nsd_*.xyz, "
            f"or {qm9.PACKAGE!r} for the package)"
        )
    return [file]


def is_pattern(path: str | os.PathLike[str]) -> bool:
    """Whether a path stands for the files whose names fit it."""
    return any(sign in Path(path).name for sign in "*?[") and not Path(path).exists()


def is_qm9(path: Path) -> bool:
    """Whether a path is QM9, whose molecules have numbers."""
    return str(path) == qm9.PACKAGE or qm9.is_raw(path)
