"""Files of reference data to frames in eV and Å. Units are converted here and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from glob import glob
from pathlib import Path
from typing import Literal, NamedTuple

from ase import units

from schnet_ase.data import qm9
from schnet_ase.data.ase_files import read_ase, read_db
from schnet_ase.data.frames import Dataset, Frame
from schnet_ase.data.npz import read_npz, stated_unit
from schnet_ase.errors import DataError
from schnet_ase.files import sha256

EnergyUnit = Literal["eV", "kcal/mol", "Hartree"]
IN_EV: Mapping[EnergyUnit, float] = {"eV": 1.0, "kcal/mol": units.kcal / units.mol, "Hartree": units.Hartree}


class OpenedFrames(NamedTuple):
    """Data that are being read, frame by frame; the rest is as in `Dataset`."""

    frames: Iterator[Frame]
    source: str
    sha256: str
    units: str
    parts: tuple[str, ...]


def read_dataset(
    path: str | os.PathLike[str],
    *,
    energy_unit: EnergyUnit | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
    exclude: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Read labelled frames.

    Parameters
    ----------
    path
        A file: ``.npz`` in the MD17 or rMD17 layout, ``.db`` of ASE (ISO17's keys included), or anything else that
        `ase.io` reads (extxyz, also gzipped), or a pattern of such files, ``"rmd17_*_train_01.npz"``, whose frames
        follow one another in the order of the names. Or QM9: ``"qm9pack:"`` for the molecules of the installed
        package `qm9pack`, or the raw ``dsgdb9nsd_*.xyz``, a folder or a tar archive of them.
    energy_unit
        Unit of the energies; forces are in this per Å. None takes what an ``.npz`` says as its ``e_unit``, else assumes
        the format's own: kcal/mol for ``.npz``, Hartree for QM9, eV else.
    energy_key, forces_key
        Where the labels are, for files that do not use the format's own names: ``"old_energies"`` and
        ``"old_forces"`` are the labels of the original MD17 in files of rMD17. Of QM9 the energy is ``"U0"``, or the
        ``"U"``, ``"H"`` or ``"G"`` named here.
    exclude
        For QM9: file that lists molecules to leave out, the data set's own ``uncharacterized.txt`` or one with a
        number a line. `qm9pack` has left those out already.

    Returns
    -------
    Dataset
        Unchecked: `check_frames` says whether the labels can be trusted.

    Raises
    ------
    DataError
        The file is missing or not of its format, a label that was named is not there, or the files of a pattern have
        different units.
    """
    opened = open_frames(path, energy_unit=energy_unit, energy_key=energy_key, forces_key=forces_key, exclude=exclude)
    return Dataset(list(opened.frames), *opened[1:])


def open_frames(
    path: str | os.PathLike[str],
    *,
    energy_unit: EnergyUnit | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
    exclude: str | os.PathLike[str] | None = None,
) -> OpenedFrames:
    """Begin to read; parameters and errors of `read_dataset`, some of the errors when a frame is asked for."""
    file, files = Path(path), files_of(path)
    if energy_unit is not None and energy_unit not in IN_EV:
        raise DataError(f"{file}: energy_unit is {energy_unit!r}; expected one of {', '.join(IN_EV)}")
    parts = files if _is_pattern(path) else [path]
    of_qm9 = all(str(part) == qm9.PACKAGE or qm9.is_raw(Path(part)) for part in parts)
    if exclude is not None and not of_qm9:
        raise DataError(f"{file}: exclude is {str(exclude)!r}, but only molecules of QM9 have numbers; leave it out")
    excluded = frozenset[int]() if exclude is None else qm9.read_excluded(Path(exclude))
    forms = [_format(part, files, energy_key, forces_key, excluded) for part in parts]
    form = forms[0]
    if energy_unit is None and len({other.unit for other in forms}) > 1:
        raise DataError(
            f"{file}: files in {', '.join(sorted({f.unit for f in forms}))}; expected one unit, or give energy_unit"
        )
    unit = energy_unit or form.unit
    try:
        digest = sha256(*files, *(() if exclude is None else (exclude,)))
        digests = tuple(sha256(file) for file in files) if _is_pattern(path) else ()
        if exclude is not None and not digests:
            digests = (sha256(*files),)  # by which they are known with another list too, or none
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error})") from error
    how = "as the file says" if form.stated else f"assumed, as {form.name} files have it"
    in_words = f"Å, {unit}, {unit}/Å ({'as given' if energy_unit else how})"

    def frames() -> Iterator[Frame]:
        frame = None
        for part, form in zip(parts, forms, strict=True):
            try:
                for index, frame in enumerate(form.frames):
                    _check_named(frame, f"{part}: frame {index}", energy_key, forces_key)
                    yield _in_ev(frame, IN_EV[unit])
            except DataError:
                raise
            except Exception as error:  # ase.io's readers raise whatever their parser met
                raise DataError(f"{part}: cannot be read as {form.name} ({type(error).__name__}: {error})") from error
        if frame is None:
            raise DataError(f"{file}: no frames; expected at least one")

    return OpenedFrames(frames(), file.name.removesuffix(":"), digest, in_words, digests)


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
    if _is_pattern(path):
        if found := sorted(file.parent / name for name in glob(file.name, root_dir=file.parent)):
            return found
        raise DataError(f"{file}: no file fits this pattern; correct it")
    if not file.is_file():
        raise DataError(
            f"{file}: no such file; expected reference data (.npz, .db, .extxyz, ..., a folder of dsgdb9nsd_*.xyz, "
            f"or {qm9.PACKAGE!r} for the package)"
        )
    return [file]


def _is_pattern(path: str | os.PathLike[str]) -> bool:
    return any(sign in Path(path).name for sign in "*?[") and not Path(path).exists()


class _Format(NamedTuple):
    frames: Iterator[Frame]
    """Nothing is read before the first is asked for."""
    unit: EnergyUnit
    name: str
    stated: bool = False
    """Whether the file itself gives the unit."""


def _format(
    path: str | os.PathLike[str],
    files: list[Path],
    energy_key: str | None,
    forces_key: str | None,
    excluded: frozenset[int],
) -> _Format:
    file = Path(path)
    if str(path) == qm9.PACKAGE:
        return _Format(qm9.read_package(files, energy_key, excluded), "Hartree", "qm9pack")
    if qm9.is_raw(file):
        return _Format(qm9.read_raw(file, energy_key, excluded), "Hartree", "raw QM9")
    if file.suffix.lower() == ".npz":
        unit = _stated_unit(file)
        return _Format(read_npz(file, energy_key, forces_key), unit or "kcal/mol", "MD17 .npz", unit is not None)
    if file.suffix.lower() == ".db":
        return _Format(read_db(file, energy_key, forces_key), "eV", "ASE .db")
    return _Format(read_ase(file, energy_key, forces_key), "eV", "ASE")


def _stated_unit(file: Path) -> EnergyUnit | None:
    stated = stated_unit(file)
    for unit in IN_EV:
        if stated is not None and stated.lower() == unit.lower():
            return unit
    if stated is not None:
        raise DataError(f"{file}: e_unit is {stated!r}; expected {', '.join(IN_EV)}; convert the file")
    return None


def _check_named(frame: Frame, where: str, energy_key: str | None, forces_key: str | None) -> None:
    """A label that was asked for by name must be there; one of the format's own names need not."""
    for kind, key, label in (("energy", energy_key, frame.energy), ("forces", forces_key, frame.forces)):
        if key is not None and label is None:
            raise DataError(f"{where} has no {kind} {key!r}; correct {kind}_key, or leave it out for the format's own")


def _in_ev(frame: Frame, unit: float) -> Frame:
    energy = None if frame.energy is None else frame.energy * unit
    return Frame(frame.geometry, energy, None if frame.forces is None else frame.forces * unit)
