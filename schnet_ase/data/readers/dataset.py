"""Read files of reference data into frames in eV and Å."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from schnet_ase.data.frames import Dataset, Frame
from schnet_ase.data.labels.chooser import Chooser
from schnet_ase.data.labels.file_units import FileUnits, resolve_units
from schnet_ase.data.labels.options import UNSAID, LabelOptions
from schnet_ase.data.readers.formats import Format, files_of, format_of, is_pattern, is_qm9, parts_of, read_errors
from schnet_ase.data.readers.qm9 import read_excluded
from schnet_ase.errors import DataError
from schnet_ase.output.files import sha256


class OpenedFrames(NamedTuple):
    """Data that are read frame by frame; the other fields are those of `Dataset`."""

    frames: Iterator[Frame]
    source: str
    sha256: str
    units: str
    parts: tuple[str, ...]
    choosers: list[Chooser]
    """One per file; what they know is complete once all frames have been read."""
    notes: tuple[str, ...] = ()

    def dataset(self, frames: Sequence[Frame]) -> Dataset:
        """Make the data set once all of `frames` have been read."""
        labels = " | ".join(dict.fromkeys(chooser.in_words() for chooser in self.choosers))
        keys = dict.fromkeys(key for chooser in self.choosers for key in chooser.keys)
        notes = dict.fromkeys([*self.notes, *(note for chooser in self.choosers for note in chooser.notes())])
        return Dataset(frames, self.source, self.sha256, self.units, self.parts, labels, tuple(keys), tuple(notes))


def read_dataset(
    path: str | os.PathLike[str],
    *,
    energy_unit: str | None = None,
    force_unit: str | None = None,
    length_unit: str | None = None,
    stress_unit: str | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
    exclude: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Read labelled frames.

    Parameters
    ----------
    path
        A file: ``.npz`` in the MD17 or rMD17 layout, an ASE ``.db`` (including ISO17's and SchNetPack's), HDF5 as in
        SPICE, ANI or QM7-X, or anything else that `ase.io` reads (extxyz, also gzipped); a folder of DeePMD-kit; or a
        pattern of such files, ``"rmd17_*_train_01.npz"``, which are read in the order of their names. For QM9:
        ``"qm9pack:"`` for the molecules of the installed package `qm9pack`, or the raw ``dsgdb9nsd_*.xyz``, a folder
        or a tar archive of them.
    energy_unit, force_unit, length_unit, stress_unit
        Units, such as ``"Hartree"``, ``"Hartree/Bohr"``, ``"Bohr"`` and ``"GPa"`` (for a virial a unit of energy). None
        takes what the file states: ``energy_unit`` in the header of an extxyz frame, ``e_unit`` in an ``.npz``,
        SchNetPack's metadata. Units that the file does not state are those of its format: energies in kcal/mol for
        ``.npz``, in Hartree for QM9, otherwise in eV; lengths in Å; forces in the unit of energy per the unit of
        length, and stress in the unit of energy per its cube.
    energy_key, forces_key, stress_key
        Names of the labels. None: the format's own names, or else a name that says so (``REF_energy``, ``virial``), if
        it is the only one. ``"old_energies"`` and ``"old_forces"`` are the labels of the original MD17 in files of
        rMD17. The energy of QM9 is ``"U0"``, or the ``"U"``, ``"H"`` or ``"G"`` named here.
    exclude
        For QM9: file that lists molecules to leave out, the data set's own ``uncharacterized.txt`` or a file with one
        number per line. `qm9pack` does not contain the uncharacterized molecules.

    Returns
    -------
    Dataset
        The frames, unchecked: `check_frames` decides whether the labels can be trusted.

    Raises
    ------
    DataError
        The file is missing or not of its format, a named label is missing, two labels contradict each other, a unit is
        unknown or contradicts the file, or the files of a pattern have different units.
    """
    options = LabelOptions(energy_unit, force_unit, length_unit, stress_unit, energy_key, forces_key, stress_key)
    opened = open_frames(path, options, exclude=exclude)
    return opened.dataset(list(opened.frames))


def open_frames(
    path: str | os.PathLike[str],
    options: LabelOptions = UNSAID,
    *,
    exclude: str | os.PathLike[str] | None = None,
) -> OpenedFrames:
    """Open data to read them frame by frame; parameters and errors as in `read_dataset`, some errors while reading."""
    file, files, parts = Path(path), files_of(path), parts_of(path)
    if exclude is not None and not all(is_qm9(part) for part in parts):
        raise DataError(f"{file}: exclude is {str(exclude)!r}, but only molecules of QM9 have numbers; leave it out")
    excluded = frozenset[int]() if exclude is None else read_excluded(Path(exclude))
    forms = [format_of(part, files, options, excluded) for part in parts]
    units = [
        resolve_units(options, form.stated, str(part), assumed_energy=form.energy_unit, assumed_length=form.length_unit)
        for part, form in zip(parts, forms, strict=True)
    ]
    words = _common_units(file, forms, units)
    try:
        digest = sha256(*files, *(() if exclude is None else (exclude,)))
        digests = tuple(sha256(*files_of(part)) for part in parts) if is_pattern(path) else ()
        if exclude is not None and not digests:
            digests = (sha256(*files),)  # identifies the data also with another list, or none
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error})") from error
    choosers = [Chooser(options, unit) for unit in units]
    return OpenedFrames(
        _frames(file, list(zip(parts, forms, choosers, strict=True))),
        file.name.removesuffix(":"),
        digest,
        words,
        digests,
        choosers,
        tuple(note for form in forms for note in form.notes),
    )


def _common_units(file: Path, forms: list[Format], units: list[FileUnits]) -> str:
    words = [unit.in_words(f"assumed, as {form.name} files have it") for unit, form in zip(units, forms, strict=True)]
    if len({unit[:5] for unit in units}) > 1:
        names = sorted({unit.energy.word for unit in units})
        differ = names if len(names) > 1 else sorted(set(words))
        raise DataError(f"{file}: files in {', '.join(differ)}; expected one unit, or give energy_unit")
    return words[0]


def _frames(file: Path, parts: list[tuple[Path, Format, Chooser]]) -> Iterator[Frame]:
    n_frames = 0
    for part, form, chooser in parts:
        with read_errors(part, form.name):
            for index, found in enumerate(form.frames):
                yield chooser.frame(found, f"{part}: frame {index}")
                n_frames += 1
        if n_frames:
            chooser.check_named(str(part))
    if not n_frames:
        raise DataError(f"{file}: no frames; expected at least one")
