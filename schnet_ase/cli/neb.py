"""The command for reaction paths."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import click

from schnet_ase.cli.common import FiniteRange, calculator_options, files_prefix, output_options, stem
from schnet_ase.cli.doubts import say_what_is_strange, with_advice
from schnet_ase.cli.lines import known
from schnet_ase.cli.relaxation import GENTLER_RELAX
from schnet_ase.cli.structures import read_frames, read_one
from schnet_ase.errors import RunawayError


@click.command()
@click.argument("model")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("last", type=click.Path(path_type=Path))
@click.option("--images", default=9, show_default=True, type=click.IntRange(3), help="Both ends included.")
@click.option("--fmax", default=0.02, show_default=True, type=FiniteRange(0, min_open=True), help="Of the band, eV/Å.")
@click.option("--steps", default=1000, show_default=True, type=click.IntRange(1))
@click.option("--no-relax", is_flag=True, help="Take both ends as they are.")
@calculator_options
@output_options
def neb(
    model: str,
    first: Path,
    last: Path,
    images: int,
    fmax: float,
    steps: int,
    no_relax: bool,
    device: str | None,
    dtype: str | None,
    output: str | None,
    overwrite: bool,
) -> None:
    """Find the minimum-energy path from FIRST to LAST with MODEL (nudged elastic band with a climbing image).

    Both files need the same atoms in the same order; of several frames, the last one counts. The ends are relaxed to
    0.01 eV/Å first. Spreads are standard deviations over the members of an ensemble of the energy above an end.
    """
    from schnet_ase.output.progress import Progress
    from schnet_ase.simulation.neb import ReactionPath, run_neb

    suffixes = (".xyz", "-saddle.xyz", ".csv", ".png")
    prefix = files_prefix(output, f"{stem(model)}-neb", suffixes, overwrite)
    start = read_one(model, first, device, dtype or "float64")
    end = read_frames(model, last, None, index=-1)[-1]
    print(f"{model}: {start.get_chemical_formula()}, {images} images, band to {fmax:g} eV/Å")
    trained_on = say_what_is_strange(model, start, moving=False)
    with Progress(None, "neb") as progress:

        def report(step: int, barrier: float, force: float) -> None:
            progress.update(step - progress.done, f"barrier {1000.0 * barrier:.1f} meV, largest force {force:.3f} eV/Å")

        try:
            found: ReactionPath = run_neb(
                start, end, prefix, images=images, fmax=fmax, steps=steps, relax_ends=not no_relax, report=report
            )
        except RunawayError as error:
            raise with_advice(error, trained_on, start, GENTLER_RELAX) from error
    print("  image   path (Å)   energy (meV)   spread (meV)   deviation (eV/Å)")
    for number, image in enumerate(found.images):
        mark = (" saddle" if number == found.saddle else "") + (" flagged" if image.flagged else "")
        spread = "–" if math.isnan(image.energy_spread_eV) else f"{1000.0 * image.energy_spread_eV:.2f}"
        deviation = known(image.max_forces_deviation_eV_per_A)
        energy = f"{1000.0 * image.energy_eV:14.2f}"
        print(f"  {number:5d} {image.distance_A:10.3f} {energy} {spread:>14s} {deviation:>18s}{mark}")
    top = found.images[found.saddle]
    if found.saddle in (0, len(found.images) - 1):
        print("no barrier: the energy is highest at an end")
    else:
        for name, side in (("first", top), ("last", found.backward)):
            spread = "" if math.isnan(side.energy_spread_eV) else f" ± {1000.0 * side.energy_spread_eV:.2f}"
            print(f"barrier from the {name} end: {1000.0 * side.energy_eV:.2f}{spread} meV")
    print(f"wrote {', '.join(f'{prefix}{suffix}' for suffix in suffixes)}")
    flagged = [str(number) for number, image in enumerate(found.images) if image.flagged]
    if flagged:
        print(
            f"do not trust images {', '.join(flagged)}: their forces_deviation is above {found.threshold:.3f} eV/Å, "
            "the threshold of the calibration; check them with the reference method",
            file=sys.stderr,
        )
