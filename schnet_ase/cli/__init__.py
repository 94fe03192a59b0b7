"""The command line, a thin layer: every command calls a function of the package and prints its result."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from typing import NoReturn

import click

from schnet_ase.cli.bridges import export, ipi
from schnet_ase.cli.data import calibrate, data, evaluate
from schnet_ase.cli.distill import distill
from schnet_ase.cli.dynamics import md
from schnet_ase.cli.environments import environments
from schnet_ase.cli.lammps import lammps
from schnet_ase.cli.models import info, models
from schnet_ase.cli.neb import neb
from schnet_ase.cli.priors import prior
from schnet_ase.cli.relaxation import relax
from schnet_ase.cli.training import crossval, learn, train, tune
from schnet_ase.cli.vibrations import vibrations
from schnet_ase.errors import RunawayError, SchNetError

# Each command imports torch, ASE and matplotlib when needed, so that `--help` and mistyped options answer at once.


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="schnet_ase")
def cli() -> None:
    """SchNet potentials for ASE: molecular dynamics, optimization, training. Units: eV, Å, fs, K."""


for _command in (
    models,
    info,
    md,
    relax,
    vibrations,
    neb,
    evaluate,
    calibrate,
    train,
    crossval,
    tune,
    learn,
    distill,
    data,
    lammps,
    ipi,
    export,
):
    cli.add_command(_command)
models.add_command(environments)
models.add_command(prior)


def main() -> NoReturn:
    """Run the command line: exit status 0, 3 if a run had to be stopped, or 2 with one line for a user's mistake."""
    for stream in (sys.stdout, sys.stderr):  # their encoding may lack an Å
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        with _log_on_stderr():
            cli.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message())
    except (click.Abort, KeyboardInterrupt) as error:
        interrupt = error.__cause__ or error  # click's own exception hides it
        said = str(interrupt) if isinstance(interrupt, KeyboardInterrupt) else ""
        print(f"schnet-ase: {said or 'interrupted; files written so far are kept'}", file=sys.stderr)
        sys.exit(130)
    except RunawayError as error:
        _fail(str(error), 3)
    except SchNetError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    sys.exit(0)


@contextlib.contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Print the package's log messages, from INFO on, on standard error while a command runs."""
    logger, handler = logging.getLogger("schnet_ase"), logging.StreamHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _fail(message: str, status: int = 2) -> NoReturn:
    print(f"schnet-ase: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
