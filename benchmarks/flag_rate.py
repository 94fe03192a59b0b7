"""Share of frames that an ensemble flags at a threshold for a given false-flag rate, together with its force errors.

    python benchmarks/flag_rate.py ENTRY CALM HOT --rate 0.01

The threshold comes from the calibration of ENTRY. The files have labelled frames that no member has seen; those of the
first file are like the training frames. "Flagged at RATE" uses the threshold that exactly this share of the first file
exceeds, from which a calibration on few frames differs by chance. "Off" are frames with an atom's force error that only
this share of the first file reaches; an uncertainty that knew the errors would flag exactly these.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from _entries import calibrated
from _report import exit_on_error, table

from schnet_ase.data import read_dataset
from schnet_ase.errors import DataError
from schnet_ase.evaluation.evaluate import evaluate_dataset
from schnet_ase.geometry.arrays import Floats
from schnet_ase.registry.loading import locate_members
from schnet_ase.uncertainty.metrics import MEV


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entry")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--rate", default=0.01, show_default=True, type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True))
@exit_on_error
def main(entry: str, files: tuple[Path, ...], rate: float) -> None:
    _, calibration = calibrated(entry)
    models = [loaded.model for loaded in locate_members(entry)]
    threshold = calibration.threshold(rate)
    calm: tuple[Floats, Floats] | None = None
    rows = []
    for file in files:
        ensemble = evaluate_dataset(models, read_dataset(file)).ensemble_errors()
        if ensemble.force_errors is None or ensemble.force_error is None:
            raise DataError(f"{file}: no forces; expected labelled frames")
        largest = np.maximum.reduceat(ensemble.force_error, np.cumsum(ensemble.n_atoms) - ensemble.n_atoms)
        found = ensemble.largest_deviation, largest
        calm = calm or found
        at_rate, off = (own > np.quantile(first, 1.0 - rate) for own, first in zip(found, calm, strict=True))
        shares = ensemble.largest_deviation > threshold, at_rate, off
        values = np.abs(ensemble.force_errors).mean(), np.sqrt((ensemble.force_errors**2).mean())
        rows.append(
            (file.name, len(largest), *(f"{s.mean():.1%}" for s in shares), *(f"{MEV * v:.1f}" for v in values))
        )
    print(f"{entry}: {threshold:.4f} eV/Å, which {rate:.2%} of frames like those of {calibration.file} exceed")
    print(f"({calibration.n_frames} of them were kept for the calibration)\n")
    at = f"flagged at {rate:.2%}"
    print(table(("file", "frames", "flagged", at, "off", "force MAE (meV/Å)", "force RMSE (meV/Å)"), rows))


if __name__ == "__main__":
    main()
