"""Fine-tuning on few frames with another zero of energy: errors before, during and after, at several learning rates.

    python benchmarks/fine_tuning.py rmd17-ethanol data/rmd17/rmd17_ethanol_test_01.npz --rate 1e-4 --rate 3e-3

Energies are shifted by `--shift` eV per frame. One fifth of the frames is used for validation every 50 steps, and 200
others for tests.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from schnet_ase.data import Dataset, TrainingSplit, read_dataset
from schnet_ase.evaluation.evaluate import evaluate_dataset
from schnet_ase.registry.loading import locate
from schnet_ase.training import DataConfig, RunConfig, TrainingConfig, train
from schnet_ase.uncertainty.metrics import MEV

HEADER = (
    "start | learning rate, highest | force MAE of the start, tested (meV/Å) | largest in validation, of that before "
    "| after, tested | energy MAE of the start (meV) | after, tested"
)
TESTED = 200


def fine_tune(start: str, dataset: Dataset, n_frames: int, steps: int, rate: float | None) -> list[str]:
    """Return the cells of a table row."""
    initial = locate(start)
    order = np.random.default_rng(0).permutation(len(dataset.frames))
    n_validation = n_frames // 5
    split = TrainingSplit(order[n_validation:n_frames], order[:n_validation])
    test = dataset._replace(frames=[dataset.frames[i] for i in order[n_frames : n_frames + TESTED]])
    config = RunConfig(
        name="fine-tuning",
        data=DataConfig(file=dataset.source),
        model=initial.model.config,
        training=TrainingConfig(steps=steps, learning_rate=rate, validate_every=50),
    )
    with tempfile.TemporaryDirectory() as folder:
        result = train(config, dataset, split, Path(folder), initial=initial.path)
    before = evaluate_dataset([initial.model], test).member(0).errors()
    after = evaluate_dataset([result.model], test).member(0).errors()
    forces = [row.errors.force_mae for row in result.history if row.errors.force_mae is not None]
    tested = [before.force_mae, after.force_mae, before.energy_mae, after.energy_mae]
    force_before, force, energy_before, energy = (np.nan if error is None else MEV * error for error in tested)
    return [
        start,
        f"{max(row.learning_rate for row in result.history):.2g}{' (default)' if rate is None else ''}",
        f"{force_before:.2f}",
        f"{max(forces) / forces[0]:.3f}",
        f"{force:.2f}",
        f"{energy_before:.1f}",
        f"{energy:.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("start", help="entry, run or file")
    parser.add_argument("data", help="whatever read_dataset reads")
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--shift", type=float, default=57.0, help="eV")
    parser.add_argument("--rate", type=float, action="append", help="learning rate; several: one after the other")
    arguments = parser.parse_args()
    data = read_dataset(arguments.data)
    shifted = [f._replace(energy=f.energy + arguments.shift) for f in data.frames if f.energy is not None]
    print(f"| {HEADER} |\n|{' --- |' * (HEADER.count('|') + 1)}")
    for rate in arguments.rate or [None]:
        cells = fine_tune(arguments.start, data._replace(frames=shifted), arguments.frames, arguments.steps, rate)
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
