"""How many frames of a file an ensemble flags, at a threshold of a stated false-flag rate, beside its force errors.

    python benchmarks/flag_rate.py ENTRY CALM HOT --rate 0.01

The threshold comes from the calibration of ENTRY; the files hold labelled frames that no member has seen, CALM such as
ENTRY was trained on, of which the stated share should be flagged, and HOT others.
"""

from __future__ import annotations

from pathlib import Path

import click
from _entries import calibrated
from _report import exit_on_error, table

from schnet_ase.data import read_dataset
from schnet_ase.metrics import MEV
from schnet_ase.registry import locate_members
from schnet_ase.training.evaluate import evaluate_dataset


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entry")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--rate", default=0.01, show_default=True, type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True))
@exit_on_error
def main(entry: str, files: tuple[Path, ...], rate: float) -> None:
    _, calibration = calibrated(entry)
    models = [loaded.model for loaded in locate_members(entry)]
    threshold = calibration.threshold(rate)
    rows = []
    for file in files:
        evaluation = evaluate_dataset(models, read_dataset(file))
        errors, ensemble = evaluation.mean().errors(), evaluation.ensemble_errors()
        flagged = ensemble.largest_deviation > threshold
        force = ["–" if error is None else f"{MEV * error:.1f}" for error in (errors.force_mae, errors.force_rmse)]
        rows.append((file.name, len(flagged), f"{flagged.mean():.1%}", *force))
    print(f"{entry}: {threshold:.4f} eV/Å, which {rate:.2%} of frames like those of {calibration.file} exceed")
    print(f"({calibration.n_frames} of them were kept for the calibration)\n")
    print(table(("file", "frames", "flagged", "force MAE (meV/Å)", "force RMSE (meV/Å)"), rows))


if __name__ == "__main__":
    main()
