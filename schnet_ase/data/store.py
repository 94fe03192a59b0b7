"""Frames and their pairs on disk, made once, for data that do not fit into memory.

A store is a folder of plain arrays, one file each, that are mapped into memory: the operating system decides what stays
in memory, and processes on one machine share it. Frames follow one another in every array.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from filelock import FileLock
from platformdirs import user_cache_path

from schnet_ase.data.frames import Dataset, Frame
from schnet_ase.data.labels.checks import with_whole_labels
from schnet_ase.data.labels.options import UNSAID, LabelOptions
from schnet_ase.data.readers.dataset import OpenedFrames, open_frames
from schnet_ase.data.stored import ARRAYS, NAMES, Names, StoredFrames
from schnet_ase.geometry.arrays import Integers
from schnet_ase.geometry.neighbors import half_neighbor_list
from schnet_ase.output.files import atomic_write
from schnet_ase.output.progress import Progress

CACHE_VARIABLE = "SCHNET_ASE_CACHE"
FORMAT = 3
"""Version of the layout of a store; a new number makes new stores."""
_CHUNK = 1000  # frames that are held in memory while a store is made
_WORDS = "words.json"


class _Words(NamedTuple):
    """The fields of a `Dataset` that state how its file was read."""

    labels: str
    keys: list[str]
    notes: list[str]


def stored_dataset(
    path: str | os.PathLike[str],
    cutoff: float | None,
    options: LabelOptions = UNSAID,
    *,
    cache: Path | None = None,
    exclude: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Read a data set as `read_dataset` does, but from arrays on disk, which the first call for a file makes.

    Parameters
    ----------
    path, exclude
        As in `read_dataset`. All files except ``.npz`` and gzipped ones are read frame by frame.
    cutoff
        Of the pairs, Å; None: every pair.
    options
        Units and keys of the labels.
    cache
        Folder of the stores; None: that of ``SCHNET_ASE_CACHE``, or else ``frames`` in the user's cache folder.

    Returns
    -------
    Dataset
        The data set; its frames are `StoredFrames`, which are valid until the store is removed.

    Raises
    ------
    DataError
        As in `read_dataset`; or a frame has no atoms, or positions or forces of the wrong shape.
    StructureError
        A frame is periodic and there is no cutoff.
    OSError
        The disk is full or the folder not writable; no part of a store is left behind.
    """
    opened = open_frames(path, options, exclude=exclude)
    cache = cache or cache_folder()
    # Everything that the arrays depend on.
    made_from = [FORMAT, opened.sha256, Path(path).suffixes, opened.units, asdict(options), cutoff]
    folder = cache / hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:32]
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):  # the folds of a run begin together
            if not folder.exists():
                _write_with_progress(opened, folder, cutoff)
    words = _Words(**json.loads((folder / _WORDS).read_text(encoding="utf-8")))
    return opened.dataset(StoredFrames(folder, cutoff))._replace(
        labels=words.labels, keys=tuple(words.keys), notes=tuple(words.notes)
    )


def cache_folder() -> Path:
    """Return the folder of the stores: that of ``SCHNET_ASE_CACHE``, or else the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else user_cache_path("schnet_ase") / "frames"


def write_store(
    frames: Iterable[Frame],
    source: str,
    folder: Path,
    cutoff: float | None,
    words: Callable[[], _Words] = lambda: _Words("", [], []),
) -> None:
    """Write frames and their pairs to `folder`, completely or not at all.

    Parameters
    ----------
    frames
        Frames, which are read once, a thousand at a time.
    source
        The file's name, for messages.
    folder
        Target folder, which must not exist. Only one process at a time may write it.
    cutoff
        Of the pairs, Å; None: every pair.
    words
        Function that returns what to record about them; called after the last frame.

    Raises
    ------
    DataError, StructureError, OSError
        As in `stored_dataset`.
    """
    building = folder.with_suffix(".part")
    shutil.rmtree(building, ignore_errors=True)  # of a process that was killed
    building.mkdir(parents=True)
    try:
        with ExitStack() as stack:
            files = {name: stack.enter_context(open(building / name, "wb")) for name in ARRAYS}
            n_atoms = n_pairs = 0
            names = Names({}, {})
            checked = with_whole_labels(frames, source)
            while chunk := list(islice(checked, _CHUNK)):
                n_atoms, n_pairs = _append(files, chunk, names, cutoff, n_atoms, n_pairs)
            for file in files.values():
                file.truncate(file.tell())
                file.flush()
                os.fsync(file.fileno())
        atomic_write(building / NAMES, json.dumps([list(name) for name in names]).encode())
        atomic_write(building / _WORDS, json.dumps(words()._asdict()).encode())
        building.rename(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _append(
    files: Mapping[str, BinaryIO],
    frames: list[Frame],
    names: Names,
    cutoff: float | None,
    n_atoms: int,
    n_pairs: int,
) -> tuple[int, int]:
    geometries = [frame.geometry for frame in frames]
    pairs = [half_neighbor_list(g.positions, g.cell, g.pbc, cutoff) for g in geometries]
    atoms_end = n_atoms + np.cumsum([len(g.numbers) for g in geometries])
    pairs_end = n_pairs + np.cumsum([len(p.first) for p in pairs])
    rows = {
        "atoms": atoms_end,
        "pairs": pairs_end,
        "cell": np.stack([g.cell for g in geometries]),
        "pbc": np.stack([g.pbc for g in geometries]),
        "energy": np.array([0.0 if frame.energy is None else frame.energy for frame in frames]),
        "has_energy": np.array([frame.energy is not None for frame in frames]),
        "has_forces": np.array([frame.forces is not None for frame in frames]),
        "stress": np.stack([np.zeros(6) if frame.stress is None else frame.stress for frame in frames]),
        "has_stress": np.array([frame.stress is not None for frame in frames]),
        "weight": np.array([frame.weight for frame in frames]),
        "config_type": _numbered([frame.config_type for frame in frames], names.config_type),
        "split": _numbered([frame.split for frame in frames], names.split),
        "numbers": np.concatenate([g.numbers for g in geometries]),
        "positions": np.concatenate([g.positions for g in geometries]),
        "forces": np.concatenate(
            [np.zeros_like(f.geometry.positions) if f.forces is None else f.forces for f in frames]
        ),
        "first": np.concatenate([p.first for p in pairs]),
        "second": np.concatenate([p.second for p in pairs]),
        "shifts": np.concatenate([p.shifts for p in pairs]),
    }
    for name, array in rows.items():
        stored = array.astype(ARRAYS[name].dtype)
        if stored.any():
            files[name].write(stored.tobytes())
        else:  # a hole in the file reads as zeros and takes no room: molecules have no cell and no shifts
            files[name].seek(stored.nbytes, os.SEEK_CUR)
    return int(atoms_end[-1]), int(pairs_end[-1])


def _numbered(words: list[str], known: dict[str, int]) -> Integers:
    """Return the number of each word among the `known` ones, to which new ones are added."""
    return np.array([known.setdefault(word, len(known)) for word in words])


def _write_with_progress(opened: OpenedFrames, folder: Path, cutoff: float | None) -> None:
    first = next(opened.frames)  # a file that cannot be read says so without a bar
    with Progress(None, f"{opened.source} to {folder.parent}", "frame") as progress:

        def counted() -> Iterator[Frame]:
            for frame in chain([first], opened.frames):
                yield frame
                progress.update()

        def words() -> _Words:
            read = opened.dataset([])
            return _Words(read.labels, list(read.keys), list(read.notes))

        write_store(counted(), opened.source, folder, cutoff, words)
