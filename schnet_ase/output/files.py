"""Write files so that nothing is lost: a new file appears whole or not at all, and the old one stays until then."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

FORMATS = (".png", ".pdf", ".svg")
"""Suffixes of pictures."""


def atomic_write(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write `content` to `path` by way of a temporary file in the same folder, fsync and rename.

    Parameters
    ----------
    path
        Target; its folder is created if needed. An existing file is replaced in one step.
    content
        Bytes, or text written as UTF-8.

    Raises
    ------
    OSError
        The folder cannot be written or the disk is full; the old file is then untouched and nothing is left behind.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def sha256(*paths: str | os.PathLike[str]) -> str:
    """Return the hexadecimal SHA-256 of the content of a file, or of several files one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
