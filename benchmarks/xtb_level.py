"""How accurate GFN2-xTB itself is: its errors against the DFT labels of published frames.

An ensemble that learned GFN2-xTB cannot be nearer to DFT than this. Frames are drawn evenly from each file. Energies
are compared after their mean is subtracted, because the levels have different zeros. `tblite` comes with the extra
`learn`.

    python benchmarks/xtb_level.py data/rmd17/rmd17_*_test_01.npz data/acac/test_MD_300K.xyz --output docs
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from _report import exit_on_error, publish

from schnet_ase.data import read_dataset
from schnet_ase.data.frames import Frame, formula
from schnet_ase.output.progress import Progress
from schnet_ase.uncertainty.metrics import MEV

NOTE = (
    "Errors of GFN2-xTB against the DFT labels of the files, frames drawn evenly. The share is that of the mean force "
    "component. Energies are compared after their mean is subtracted; their spread is the mean deviation from it."
)
HEADER = (
    *("file", "molecule", "frames", "force MAE (meV/Å)", "mean force component (meV/Å)", "share"),
    *("energy MAE (meV)", "spread of energies (meV)"),
)


def row(path: Path, frames: int) -> tuple[str, ...]:
    """Return a row of the table for a file."""
    found = read_dataset(path).frames
    chosen = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, frames).round().astype(int))]
    energies, errors, sizes = [], [], []
    with Progress(len(chosen), path.stem, "frame") as progress:
        for frame, (energy, forces) in zip(chosen, labels(chosen), strict=True):
            energies.append((frame.energy, energy))
            errors.append(np.abs(forces - frame.forces).ravel())
            sizes.append(np.abs(frame.forces).ravel())
            progress.update()
    dft, xtb = (np.array(column) - np.mean(column) for column in zip(*energies, strict=True))
    error, size = np.concatenate(errors).mean(), np.concatenate(sizes).mean()
    return (
        path.name,
        formula(chosen[0].geometry.numbers),
        f"{len(chosen)}",
        f"{MEV * error:.0f}",
        f"{MEV * size:.0f}",
        f"{100 * error / size:.0f} %",
        f"{MEV * np.abs(xtb - dft).mean():.0f}",
        f"{MEV * np.abs(dft).mean():.0f}",
    )


def labels(frames: list[Frame]) -> Iterator[tuple[float, np.ndarray]]:
    """Yield energy in eV and forces in eV/Å of each frame at the level of GFN2-xTB."""
    from tblite.ase import TBLite

    for frame in frames:
        atoms = frame.atoms()
        atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
        yield atoms.get_potential_energy(), atoms.get_forces()


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--frames", default=200, show_default=True, type=click.IntRange(1), help="Frames of each file.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for xtb-level.md.")
@exit_on_error
def main(files: tuple[Path, ...], frames: int, output: Path | None) -> None:
    """See the module."""
    rows = [row(file, frames) for file in files]
    publish("xtb-level", "GFN2-xTB against DFT", HEADER, rows, None, output, NOTE)


if __name__ == "__main__":
    main()
