"""Fetch a file from a folder or an https address, resume where it stopped, and accept it only by its hash."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from schnet_ase.errors import DownloadError, RegistryError
from schnet_ase.output.files import sha256
from schnet_ase.output.progress import Progress

CHUNK = 1 << 16
TIMEOUT = 30.0
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


def is_address(source: str) -> bool:
    """Return whether `source` is an address rather than a path."""
    return "://" in source


def check_address(address: str) -> None:
    """Accept https; accept http from this machine only, where nobody is in between.

    Raises
    ------
    RegistryError
        The address is of another kind.
    """
    try:
        safe = _is_safe(address)
    except ValueError as error:  # an IPv6 host that is none
        raise RegistryError(f"{address!r}: not an address ({error}); expected a folder or an https address") from error
    if not (safe and re.fullmatch("[!-~]+", address)):
        raise RegistryError(f"{address!r}: expected a folder or an https address (percent-encoded ASCII)")


def _is_safe(address: str) -> bool:
    parts = urlsplit(address)
    if parts.scheme == "https":
        return bool(parts.hostname)
    return parts.scheme == "http" and parts.hostname in LOCAL_HOSTS


def fetch(source: str, expected: str | None, target: Path, description: str) -> None:
    """Make the file `target` with the content of `source`, unless it is there already.

    What has come of it is kept in ``TARGET.part``: the next call asks for the rest (HTTP Range, RFC 9110 §14). It
    starts over where the server sends the whole file, or where the hash shows that the beginning was of another one;
    so no ETag is needed, and the rest may come from another place than the beginning. Without a hash nobody could tell
    that, so nothing is kept.

    Parameters
    ----------
    source
        Path or address of the file. The caller has checked an address that a user gave, see `check_address`.
    expected
        SHA-256 that the file must have, hexadecimal, or how it begins; None where it is not known.
    target
        Where the file goes, in a folder that exists.
    description
        Name in the progress bar.

    Raises
    ------
    RegistryError
        The file has another hash; nothing of it is kept.
    DownloadError
        The file cannot be downloaded, or not completely.
    """
    part = target.with_name(f"{target.name}.part")
    if expected is None:
        try:
            _transfer(source, part, description)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return
    if _hash(target).startswith(expected):
        return
    if not _hash(part).startswith(expected):
        resumed = _transfer(source, part, description)
        if resumed and not _hash(part).startswith(expected):
            part.unlink()
            _transfer(source, part, description)
    found = _hash(part)
    if not found.startswith(expected):
        part.unlink()
        raise RegistryError(
            f"{source}: its SHA-256 is {found}, expected {expected}; it was discarded, try another address"
        )
    part.replace(target)


def _hash(file: Path) -> str:
    return sha256(file) if file.is_file() else ""


def _transfer(source: str, part: Path, description: str) -> bool:
    """Append to `part` what it lacks, or write it anew; return whether it was appended to."""
    start = part.stat().st_size if part.is_file() else 0
    with _opened(source, start) as content, part.open("ab") as file:
        file.truncate(content.start)
        with Progress(content.total, description, "B") as progress:
            progress.update(content.start)
            while chunk := _read(source, content.stream):
                file.write(chunk)
                progress.update(len(chunk))
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    if content.total is not None and size < content.total:
        raise DownloadError(
            f"{source}: broke off after {size} of {content.total} bytes; the same command resumes there"
        )
    return content.start > 0


class _Content(NamedTuple):
    stream: IO[bytes]
    start: int
    """Offset of the first byte of the stream in the file."""
    total: int | None
    """Size of the whole file, bytes, if known."""


@contextmanager
def _opened(source: str, start: int) -> Iterator[_Content]:
    content = _request(source, start) if is_address(source) else _open_file(Path(source), start)
    with content.stream:
        yield content


def _open_file(path: Path, start: int) -> _Content:
    try:
        stream = path.open("rb")
    except FileNotFoundError as error:
        raise DownloadError(f"{path}: no such file; the entry is not whole there") from error
    size = os.fstat(stream.fileno()).st_size
    return _Content(stream, stream.seek(start if start <= size else 0), size)


def _request(address: str, start: int) -> _Content:
    """Ask for the file from byte `start` on; a server that cannot do that sends it from zero."""
    request = Request(address, headers={"User-Agent": "schnet_ase"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = build_opener(_Redirect).open(request, timeout=TIMEOUT)
    except HTTPError as error:
        with error:
            if start and error.code == 416:  # range not satisfiable: the file is shorter
                return _request(address, 0)
            raise DownloadError(
                f"{address}: the server answers {error.code} {error.reason}; check the address"
            ) from error
    except (OSError, HTTPException) as error:
        raise _broken(address, error) from error
    # The hash shows whether this is the requested part.
    first = start if response.status == 206 else 0
    length = response.headers.get("Content-Length", "")
    return _Content(response, first, first + int(length) if length.isdecimal() else None)


def _read(source: str, stream: IO[bytes]) -> bytes:
    try:
        return stream.read(CHUNK)
    except (OSError, HTTPException) as error:
        raise _broken(source, error) from error


def _broken(source: str, error: Exception) -> DownloadError:
    reason = error.reason if isinstance(error, URLError) else error
    text = f"cannot be fetched ({reason or type(error).__name__})"
    return DownloadError(f"{source}: {text}; check network and address, then the same command resumes")


class _Redirect(HTTPRedirectHandler):
    """Follow to addresses that would be accepted themselves; from one that would not, to any."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if _is_safe(req.full_url):
            try:
                check_address(newurl)
            except RegistryError:
                fp.close()
                raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)
