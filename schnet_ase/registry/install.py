"""Install entries into the user's data folder: whole and verified, or not at all."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from schnet_ase.errors import RegistryError
from schnet_ase.output.files import sha256
from schnet_ase.output.transfer import check_address, fetch, is_address
from schnet_ase.registry.card import CARD_FILE, Card, read_card
from schnet_ase.registry.lookup import entry_folders, listings, user_models

PARTIAL = ".partial"


def install_entry(name: str, source: str | os.PathLike[str] | None = None, *, sha256: str | None = None) -> Card:
    """Install the entry `name` for this user; after an interruption, the same call resumes.

    The files are gathered and checked in a hidden folder beside the entries, which is then renamed: a kill at any
    moment leaves the whole entry or none.

    Parameters
    ----------
    name
        Name of the entry.
    source
        Folder, or https address, of the entry's files; by default the address in the index.
    sha256
        SHA-256 of the entry's ``card.json``, hexadecimal, which holds the hashes of the other files; by default the one
        in the index. It is required for an address that is in no index, but not for a folder.

    Returns
    -------
    Card
        Card of the installed entry. If it is already installed with these files, nothing is downloaded.

    Raises
    ------
    RegistryError
        No address or hash is known; a file has another hash than expected; or the user's data folder has another entry
        of this name, which stays unchanged.
    DownloadError
        A file could not be downloaded; the part that arrived is kept for the next call.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise RegistryError(f"{name!r} is no name of an entry; expected one such as rmd17-ethanol")
    listing = listings().get(name)
    if source is None:
        source = None if listing is None else listing.address
        if source is None:
            if installed := entry_folders().get(name):
                if listing is not None and _is_whole(installed, listing.sha256):
                    return read_card(installed)
                raise RegistryError(f"{name} is installed, in {installed}; to get another of this name, give --from")
            raise _no_address(name, listed=listing is not None)
    source = os.fspath(source)
    if sha256 is None:
        sha256 = _hash_of_card(name, source) if listing is None else listing.sha256
    elif not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise RegistryError(f"{sha256!r} is no SHA-256; expected 64 hexadecimal digits")
    if is_address(source):
        check_address(source)
    else:
        _check_folder(name, source)
    place = user_models() / PARTIAL
    place.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(place / f"{name}.lock").acquire(timeout=0):
            return _install(name, source, sha256.lower())
    except Timeout as error:
        raise RegistryError(f"{name}: another process is installing it; wait for it") from error


def _install(name: str, source: str, expected: str) -> Card:
    found = entry_folders().get(name)
    if found is not None and _is_whole(found, expected):
        return read_card(found)
    target = user_models() / name
    if target.exists():
        raise RegistryError(f"{target} exists with other files than those requested; move it away and try again")
    # One folder per version of the entry, so that parts of two versions are never mixed.
    parts = user_models() / PARTIAL / name / expected
    parts.mkdir(parents=True, exist_ok=True)
    base = source.rstrip("/")
    fetch(f"{base}/{CARD_FILE}", expected, parts / CARD_FILE, f"{name}/{CARD_FILE}")
    for file, digest in read_card(parts).hashes.items():
        fetch(f"{base}/{file}", digest, parts / file, f"{name}/{file}")
    parts.rename(target)
    shutil.rmtree(parts.parent)
    return read_card(target)


def _is_whole(folder: Path, expected: str) -> bool:
    if sha256(folder / CARD_FILE) != expected:
        return False
    hashes = read_card(folder).hashes
    return all((folder / file).is_file() and sha256(folder / file) == digest for file, digest in hashes.items())


def _hash_of_card(name: str, source: str) -> str:
    if is_address(source):
        raise RegistryError(f"{name} is in no index; give the --sha256 of its {CARD_FILE} from whoever made it")
    _check_folder(name, source)
    return sha256(Path(source) / CARD_FILE)


def _check_folder(name: str, source: str) -> None:
    if not (Path(source) / CARD_FILE).is_file():
        raise RegistryError(f"{source}: no {CARD_FILE} in it; expected the entry's own folder, such as models/{name}")


def _no_address(name: str, *, listed: bool) -> RegistryError:
    what = "no address of it is known" if listed else "it is in no index"
    own = f" (one of schnet_ase's own is models/{name} in its source repository)" if listed else ""
    return RegistryError(f"{name}: {what}; give --from FOLDER_OR_HTTPS_ADDRESS{own}")
