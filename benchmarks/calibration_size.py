"""Number of calibration frames needed: coverage and false flags for repeated draws of the calibration frames.

    python benchmarks/calibration_size.py ENTRY DATA

DATA has labelled frames that no member of ENTRY has seen. Repeatedly, some of them are drawn at random to calibrate the
ensemble, and the coverage of its half-widths at 90 % is measured on the others. The entry's card is not changed.
"""

import argparse

import numpy as np

from schnet_ase.data import read_dataset
from schnet_ase.evaluation.evaluate import evaluate_dataset
from schnet_ase.registry.loading import locate_members
from schnet_ase.uncertainty.errors import EnsembleErrors
from schnet_ase.uncertainty.fit import calibrate

COVERAGE = 0.9
RATES = (0.02, 0.005)


def select(errors: EnsembleErrors, frames: np.ndarray) -> EnsembleErrors:
    """Return the errors of some frames, in the order given."""
    starts = np.cumsum(errors.n_atoms) - errors.n_atoms
    atoms = np.concatenate([np.arange(starts[b], starts[b] + errors.n_atoms[b]) for b in frames])
    return errors._replace(
        n_atoms=errors.n_atoms[frames],
        numbers=errors.numbers[atoms],
        energy_std=errors.energy_std[frames],
        forces_std=errors.forces_std[atoms],
        deviation=errors.deviation[atoms],
        energy_error=errors.energy_error[frames],
        force_errors=errors.force_errors[atoms],
    )


def measure(errors: EnsembleErrors, n_frames: int, rng: np.random.Generator) -> list[float]:
    """Return the coverage of energies and of atoms' force errors, and false-flag rates, on the frames not drawn."""
    order = rng.permutation(len(errors.n_atoms))
    members = tuple(str(m) for m in range(errors.n_members))
    calibration = calibrate(
        select(errors, order[:n_frames]), coverage=COVERAGE, file="drawn", sha256="", members=members
    )
    rest = select(errors, order[n_frames:])
    energy = np.abs(rest.energy_error) <= calibration.energy.half_width(rest.energy_std, COVERAGE)
    forces = rest.force_error <= calibration.forces_half_width(rest.deviation, rest.numbers, COVERAGE)
    flags = [np.mean(rest.largest_deviation > calibration.threshold(rate)) for rate in RATES]
    return [energy.mean(), forces.mean(), *flags]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entry")
    parser.add_argument("data")
    parser.add_argument("--frames", type=int, nargs="+", default=[20, 50, 100, 200])
    parser.add_argument("--repetitions", type=int, default=400)
    arguments = parser.parse_args()
    models = [loaded.model for loaded in locate_members(arguments.entry)]
    errors = evaluate_dataset(models, read_dataset(arguments.data)).ensemble_errors()
    print(f"{arguments.entry}, {arguments.repetitions} draws from {len(errors.n_atoms)} frames of {arguments.data}")
    print(f"{'':8s}{'energy coverage':>26s}{'force coverage':>26s}{'false flags, mean':>24s}")
    head = f"{'mean':>9s}{'sd':>7s}{'87–93 %':>10s}"
    print(f"{'frames':>8s}{head}{head}" + "".join(f"{f'at {rate}':>12s}" for rate in RATES))
    for n_frames in arguments.frames:
        rng = np.random.default_rng(0)
        rows = np.array([measure(errors, n_frames, rng) for _ in range(arguments.repetitions)]).T
        parts = [f"{r.mean():9.3f}{r.std():7.3f}{np.mean(np.abs(r - COVERAGE) <= 0.03):10.0%}" for r in rows[:2]]
        print(f"{n_frames:8d}{''.join(parts)}" + "".join(f"{r.mean():12.4f}" for r in rows[2:]))


if __name__ == "__main__":
    main()
