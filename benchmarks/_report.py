"""Output of benchmarks: Markdown tables with the conditions under which they were measured."""

from __future__ import annotations

import csv
import functools
import io
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import ParamSpec, TypeVar

import click
from matplotlib.figure import Figure

from schnet_ase.errors import SchNetError
from schnet_ase.output.figures import save_figure
from schnet_ase.output.files import atomic_write
from schnet_ase.output.machine import processor

P = ParamSpec("P")
T = TypeVar("T")


def line(cells: Iterable[object]) -> str:
    """Return a line of a Markdown table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    return "\n".join([line(header), line("---" for _ in header), *(line(row) for row in rows)])


def comma_separated(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def write_results(folder: Path, name: str, page: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a page, NAME.md, and its table, NAME.csv, into a folder, which is created if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / f"{name}.md", page)
    atomic_write(folder / f"{name}.csv", comma_separated(header, rows))


def publish(
    name: str,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    figure: Figure | None,
    output: Path | None,
    note: str = "",
    after: Sequence[str] = (),
) -> None:
    """Print a page (a note, the table, the parts `after`, the figure); write it, the table as CSV and the figure."""
    picture = "" if figure is None else f"![{title}]({name}.png)"
    parts = (f"# {title}", note, table(header, rows), *after, picture, conditions())
    page = "\n\n".join(part for part in parts if part) + "\n"
    if output is not None:
        write_results(output, name, page, header, rows)
        if figure is not None:
            save_figure(figure, output / f"{name}.png")
    print(page)


def conditions(schnetpack_python: str | None = None) -> str:
    """Return command, machine and versions as a line of Markdown."""
    theirs = ""
    if schnetpack_python is not None:
        query = "from importlib.metadata import version as v; print(v('schnetpack'), 'with PyTorch', v('torch'))"
        found = subprocess.run([schnetpack_python, "-c", query], capture_output=True, text=True, check=True)
        theirs = f"SchNetPack {found.stdout.strip()}, "
    spec = sys.modules["__main__"].__spec__
    program = [sys.argv[0]] if spec is None else ["-m", spec.name]
    command = shlex.join(["python", *program, *sys.argv[1:]])
    return (
        f"`{command}`: {processor()}, {os.cpu_count()} cores; schnet_ase {version('schnet_ase')} with PyTorch "
        f"{version('torch')}, {theirs}ASE {version('ase')}, Python {platform.python_version()}."
    )


class _Mistake(click.ClickException):
    exit_code = 2


def exit_on_error(command: Callable[P, T]) -> Callable[P, T]:
    """Make a command print an error in one line and exit with status 2."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except (SchNetError, OSError) as error:
            raise _Mistake(" ".join(str(error).split())) from error

    return wrapped
