"""Common parts of commands: options, names of files, and the printing of numbers."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from schnet_ase.output.files import FORMATS

if TYPE_CHECKING:
    from schnet_ase.registry.card import Card
    from schnet_ase.uncertainty.metrics import Errors


class FiniteRange(click.FloatRange):
    """A range that excludes NaN and infinite numbers; its ends may be open."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number", param, ctx)
        return number


def calculator_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--device", help="cpu or cuda; default: cuda if available."),
        click.option("--dtype", type=click.Choice(["float32", "float64"]), help="Of the network."),
    ):
        command = option(command)
    return command


_LABEL_OPTIONS = {
    "energy_unit": "Unit of the energies.  [default: what the file states, else its format's]",
    "force_unit": "Unit of the forces.  [default: the energy's per the length's]",
    "length_unit": "Unit of positions and cells.  [default: what the file states, else Å]",
    "stress_unit": "Unit of the stress, or of energy for a virial.  [default: energy per length³]",
    "energy_key": "Name of the energies, where it is not the format's own.",
    "forces_key": "Name of the forces, where it is not the format's own.",
    "stress_key": "Name of the stress or the virial, where it is not the format's own.",
}


def label_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add options on how labels are read; the command receives them as `labels`, keywords of `read_dataset`."""

    @functools.wraps(command)
    def with_labels(**arguments: Any) -> Any:
        labels = {name: arguments.pop(name) for name in (*_LABEL_OPTIONS, "exclude")}
        return command(labels=labels, **arguments)

    wrapped: Callable[..., Any] = with_labels
    wrapped = click.option("--exclude", type=click.Path(path_type=Path), help="List of molecules of QM9 to leave out.")(
        wrapped
    )
    for name, text in reversed(_LABEL_OPTIONS.items()):
        wrapped = click.option(f"--{name.replace('_', '-')}", name, help=text)(wrapped)
    return wrapped


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--output", help="Prefix of the files written, or a folder for them: one that exists, or NAME/."),
        click.option("--overwrite", is_flag=True, help="Replace files of an earlier run."),
    ):
        command = option(command)
    return command


def stem(model: str) -> str:
    """Return the stem of files made with a model: the joined parts of a name, or the last part of a path."""
    path = Path(model)
    if path.exists():
        return path.stem if path.suffix == ".safetensors" else path.resolve().name
    return model.replace("/", "-")


def named(output: str | None, name: str) -> Path:
    """Return the path that `output` means: itself, or `name` in it if it is a folder; None is the current folder."""
    if output is None:
        return Path(name)
    if not output:
        raise click.UsageError("--output is empty; give a path, or a folder that ends with /")
    return Path(output, name) if output.endswith(("/", os.sep)) or Path(output).is_dir() else Path(output)


def picture(output: str | None, name: str, overwrite: bool) -> Path:
    """Return the path of a command's picture, by `named`; a path without a suffix gets that of `name`."""
    path = named(output, name)
    if not path.suffix:
        path = path.with_suffix(Path(name).suffix)
    if path.suffix.lower() not in FORMATS:
        raise click.UsageError(f"--output {path}: no picture is written as {path.suffix}; give {', '.join(FORMATS)}")
    return free(path, ("",), overwrite)


def files_prefix(output: str | None, name: str, suffixes: tuple[str, ...], overwrite: bool) -> Path:
    """Return the prefix of a run's files, by `named`, without the suffix of one of them; none of the files may
    exist."""
    path = named(output, name)
    return free(path.with_suffix("") if output is not None and path.suffix in suffixes else path, suffixes, overwrite)


def free(prefix: Path, suffixes: tuple[str, ...], overwrite: bool) -> Path:
    for suffix in suffixes:
        file = Path(f"{prefix}{suffix}")
        if file.exists() and not overwrite:
            raise click.UsageError(f"{file} exists; give another --output, or --overwrite")
    return prefix


def mev(value: float | None) -> str:
    return "–" if value is None else f"{1000.0 * value:.2f}"


def print_errors(label: str, errors: Errors) -> None:
    print(f"{label} ({errors.counts()})")
    for row in errors.rows():
        print(f"  {row.name:22s} {row.value:10.3f} {row.unit:6s} {row.other:10.4f} {row.other_unit}")


def print_card_errors(card: Card) -> None:
    for label, errors in (("calibration", card.metrics.calibration), ("test", card.metrics.test)):
        if errors is not None:
            print_errors(f"ensemble on {label} frames", errors)


def print_index_hint(card: Card) -> None:
    """Print how to update the index beside an entry whose card was written anew, if that index lists the entry."""
    from schnet_ase.registry.index import INDEX_FILE, read_index

    index = card.path.parent
    if card.name in {listing.name for listing in read_index(index)}:
        print(f"{index / INDEX_FILE} has the hash of the old card; update it with: schnet-ase models index {index}")


def print_calibration(card: Card) -> None:
    from schnet_ase.uncertainty.calibration import MIN_MEMBERS

    calibration = card.calibration
    if calibration is None:
        few = len(card.members) < MIN_MEMBERS
        print(f"no calibration; {f'it takes {MIN_MEMBERS} members' if few else 'schnet-ase calibrate makes one'}")
        return
    print(
        f"calibrated on {calibration.n_frames} frames of {calibration.file}; half-widths for a coverage of "
        f"{100.0 * calibration.coverage:g}% at the usual spread s₀:"
    )
    for label, unit, intervals in (("energy", "meV", calibration.energy), ("force", "meV/Å", calibration.forces)):
        if intervals is not None:
            s = intervals.prior_spread
            width = intervals.half_width(s, calibration.coverage)
            print(f"  {label:8s} {1000.0 * width:9.3f} {unit:6s} s₀ = {1000.0 * s:.3f}, α = {intervals.alpha:.3f}")
    if calibration.element_factors:
        factors = ", ".join(f"{symbol} {factor:.2f}" for symbol, factor in calibration.element_factors.items())
        print(f"  force errors of an element relative to others of the same spread: {factors}")
    share = calibration.exceeded_by
    print(f"largest forces_deviation of a frame, exceeded by {share}: {calibration.threshold():.4f} eV/Å")
