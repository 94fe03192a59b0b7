"""How many frames of a file an ensemble flags, at a threshold of a stated false-flag rate, beside its force errors.

    python benchmarks/flag_rate.py ENTRY FILE... [--rate 0.01]

The threshold comes from the calibration on the entry's card; the files hold labelled frames that no member has seen.
"""

import argparse

import numpy as np

from schnet_ase.data import read_dataset
from schnet_ase.registry import get_card, locate_members
from schnet_ase.training.evaluate import evaluate_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entry")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--rate", type=float, default=0.01)
    arguments = parser.parse_args()
    calibration = get_card(arguments.entry).calibration
    models = [loaded.model for loaded in locate_members(arguments.entry)]
    threshold = calibration.threshold(arguments.rate)
    print(f"{arguments.entry}: {threshold:.4f} eV/Å is exceeded by {arguments.rate:.2%} of {calibration.file}")
    print(f"{'frames':>8s}{'flagged':>10s}{'force MAE':>12s}{'force RMSE':>12s}  meV/Å")
    for file in arguments.files:
        evaluation = evaluate_dataset(models, read_dataset(file))
        errors = evaluation.mean().errors()
        flagged = np.mean(evaluation.ensemble_errors().largest_deviation > threshold)
        mae, rmse = 1000.0 * errors.force_mae, 1000.0 * errors.force_rmse
        print(f"{errors.n_frames:8d}{flagged:10.1%}{mae:12.1f}{rmse:12.1f}  {file}")


if __name__ == "__main__":
    main()
