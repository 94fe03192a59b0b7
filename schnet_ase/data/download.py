"""Download data sets by name, check them, and unpack them for `read_dataset`.

The addresses come from the pages of the data sets or from SchNetPack. A checksum is the beginning of the SHA-256 that
the package `load-atoms` (0.3.10) keeps for the same file. Where nobody has published one, the SHA-256 of the file is
printed, to compare it with a colleague's.
"""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from schnet_ase.data.readers.dataset import open_frames
from schnet_ase.data.readers.qm9 import read_excluded
from schnet_ase.data.rmd17 import write_split
from schnet_ase.errors import DataError, DownloadError, RegistryError
from schnet_ase.output.files import sha256
from schnet_ase.output.transfer import fetch


class Remote(NamedTuple):
    """One file to fetch."""

    url: str
    name: str
    sha256: str | None = None
    """Beginning of the SHA-256; None: not known."""
    unpack: tuple[str, ...] = ()
    """Patterns of the members of a tar archive to unpack beside it; empty: the file is read as it is."""
    then: Callable[[Path], list[Path]] | None = None
    """Function that makes more files in the folder of the unpacked ones, and returns them."""


class DataSet(NamedTuple):
    """The files of a data set."""

    description: str
    licence: str
    files: tuple[Remote, ...]


def _md17(molecule: str, file: str | None = None) -> DataSet:
    url = f"http://www.quantum-machine.org/gdml/data/npz/md17_{file or molecule}.npz"
    description = f"MD17: {molecule}, original labels, kcal/mol; doi 10.1126/sciadv.1603015"
    return DataSet(description, "not stated", (Remote(url, f"md17_{file or molecule}.npz"),))


DATA_SETS: Mapping[str, DataSet] = {
    "rmd17": DataSet(
        "revised MD17: ten molecules, 100,000 frames each, and split 01; doi 10.6084/m9.figshare.12672038",
        "CC0",
        (
            Remote(
                "https://figshare.com/ndownloader/files/23950376",
                "rmd17.tar.bz2",
                "cddeea2ec2c4",
                ("rmd17/npz_data/*.npz", "rmd17/splits/index_*_01.csv"),
                write_split,
            ),
        ),
    ),
    "qm9": DataSet(
        "QM9: 133,885 molecules as raw files, and which are uncharacterized; doi 10.1038/sdata.2014.22",
        "CC0",
        (
            Remote("https://figshare.com/ndownloader/files/3195389", "dsgdb9nsd.xyz.tar.bz2", "3a63848ac806"),
            Remote("https://figshare.com/ndownloader/files/3195404", "uncharacterized.txt"),
        ),
    ),
    "iso17": DataSet(
        "ISO17: 129 isomers of C7O2H10, 5,000 frames each, PBE+TS; arXiv 1706.08566",
        "not stated",
        (Remote("http://quantum-machine.org/datasets/iso17.tar.gz", "iso17.tar.gz", unpack=("iso17/*.db",)),),
    ),
    **{f"md17-{m}": _md17(m) for m in ("aspirin", "ethanol", "malonaldehyde", "naphthalene")},
    **{f"md17-{m}": _md17(m) for m in ("salicylic", "toluene", "uracil")},
    "md17-benzene": _md17("benzene", "benzene2017"),
}


def get(name: str, folder: Path, report: Callable[[str], None] = print) -> list[Path]:
    """Download a data set, or those of its files that are missing.

    Parameters
    ----------
    name
        A key of `DATA_SETS`.
    folder
        Target folder.
    report
        Callback that receives one line about each file.

    Returns
    -------
    list of Path
        The files that `read_dataset` reads, and for QM9 also the list of uncharacterized molecules.

    Raises
    ------
    DataError
        There is no such data set, or a file is not what it should be.
    DownloadError
        A file cannot be downloaded.
    OSError
        The folder cannot be written.
    """
    if name not in DATA_SETS:
        raise DataError(f"{name} is not a data set that can be fetched; expected one of {', '.join(DATA_SETS)}")
    found: list[Path] = []
    for remote in DATA_SETS[name].files:
        file = folder / remote.name
        if not file.exists():
            report(f"{remote.url} to {file}")
            _fetch(remote, folder)
        digest = sha256(file)
        if remote.sha256 is not None and not digest.startswith(remote.sha256):
            raise DataError(
                f"{file}: its SHA-256 is {digest} and should begin with {remote.sha256}; remove the file and try again"
            )
        checked = "as it should be" if remote.sha256 else "compare it with another's: none has been published"
        if remote.sha256 is None and not remote.unpack:
            _read(file)
        report(f"{file}: SHA-256 {digest}, {checked}")
        found += _unpack(file, remote.unpack) if remote.unpack else [file]
        if remote.then is not None:
            found += remote.then(found[-1].parent)
    return list(dict.fromkeys(found))


def _fetch(remote: Remote, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        fetch(remote.url, remote.sha256, folder / remote.name, remote.name)
    except (DownloadError, RegistryError) as error:
        kind = DownloadError if isinstance(error, DownloadError) else DataError
        raise kind(f"{error}; or put the file into {folder} as {remote.name} by other means") from error


def _read(file: Path) -> None:
    """Check that a file without a checksum can be read, because some servers send a web page instead of the file."""
    try:
        if file.suffix == ".txt":
            read_excluded(file)
        else:
            next(open_frames(file).frames)
    except DataError as error:
        raise DataError(f"{error}; remove the file and try again") from error


def _unpack(archive: Path, patterns: tuple[str, ...]) -> list[Path]:
    """Unpack the members of an archive that match one of the patterns into its folder, all of them or none."""
    target = archive.with_name(archive.name.partition(".")[0])
    if not target.is_dir():
        building = Path(tempfile.mkdtemp(dir=archive.parent, prefix=f".{target.name}."))
        try:
            with tarfile.open(archive) as content:
                for member in content:
                    if member.isfile() and any(map(Path(member.name).match, patterns)):
                        member.name = Path(member.name).name
                        content.extract(member, building, filter="data")
                while content.fileobj is not None and content.fileobj.read(1 << 20):
                    pass  # gzip's own checksum comes last
            building.chmod(0o755)
            os.rename(building, target)
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise DataError(
                f"{archive}: not a whole tar archive ({str(error).partition(chr(10))[0]}); remove it and try again"
            ) from error
        finally:
            shutil.rmtree(building, ignore_errors=True)
    files = sorted(target.iterdir())
    if not files:
        raise DataError(f"{archive}: nothing in it is {patterns[0]}; remove it and {target}, and try again")
    return files
