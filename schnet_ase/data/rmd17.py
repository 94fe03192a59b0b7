"""The official training and test splits of revised MD17."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from schnet_ase.errors import DataError
from schnet_ase.output.files import atomic_write

PARTS = ("train_01", "test_01")


def write_split(folder: Path) -> list[Path]:
    """Write the first of the five official splits, 1,000 frames each: ``rmd17_ethanol_train_01.npz`` and so on.

    Parameters
    ----------
    folder
        Folder with the files of the ten molecules, and ``index_train_01.csv`` and ``index_test_01.csv`` of the same
        archive.

    Returns
    -------
    list of Path
        The files of the split; existing ones are left unchanged.

    Raises
    ------
    DataError
        An index file is missing, or an index is out of range.
    """
    written: list[Path] = []
    for whole in sorted(folder.glob("rmd17_*.npz")):
        if whole.stem.endswith(PARTS):
            continue
        files = {part: whole.with_name(f"{whole.stem}_{part}.npz") for part in PARTS}
        missing = [part for part in PARTS if not files[part].exists()]
        if missing:
            with np.load(whole) as file:
                arrays = {name: file[name] for name in file.files}
            for part in missing:
                _write_part(arrays, folder / f"index_{part}.csv", files[part])
        written += files.values()
    return written


def _write_part(arrays: dict[str, Any], index: Path, file: Path) -> None:
    try:
        frames = [int(line) for line in index.read_text().split()]
    except (OSError, ValueError) as error:
        raise DataError(f"{index}: no list of frames; remove {index.parent} and give the command again") from error
    n_frames = len(arrays["energies"])
    if not frames or min(frames) < 0 or max(frames) >= n_frames:
        raise DataError(f"{index}: expected numbers from 0 to {n_frames - 1}; remove {index.parent} and try again")
    content = io.BytesIO()
    # Arrays without a row per frame, the elements, are copied whole.
    np.savez(content, **{name: a[frames] if len(a) == n_frames else a for name, a in arrays.items()})
    atomic_write(file, content.getvalue())
