"""Stability of dynamics with an ensemble, and whether the monitor flags failures before they happen.

The protocol is that of "Forces are not enough" (Fu et al., TMLR 2023): Nosé-Hoover dynamics at 500 K with steps of
0.5 fs for 300 ps from five seeds; a run has collapsed when a bond is more than 0.5 Å off its mean length in the
reference frames. Further runs are meant to fail: a Langevin thermostat heats them to 1,500 K from the start, or every
bond is pulled apart in steps of 0.01 Å, from the relaxed structure and from reference frames. DATA has the reference
frames, TRAINING those that the entry was trained on. Finished runs are kept, and the same command resumes.

\b
    python benchmarks/stability.py rmd17-ethanol rmd17_ethanol_test_01.npz rmd17_ethanol_train_01.npz
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from _entries import calibrated
from _pulls import pull_bonds
from _report import conditions, exit_on_error
from _stability_results import Results, Watched, distance_counts, distribution_error, draw, markdown
from ase import Atoms

from schnet_ase.data import read_dataset
from schnet_ase.errors import DataError
from schnet_ase.geometry.arrays import Floats
from schnet_ase.output.files import atomic_write
from schnet_ase.output.progress import Progress
from schnet_ase.registry.loading import locate_members
from schnet_ase.stability.bonds import find_bonds
from schnet_ase.stability.pool import run_jobs
from schnet_ase.stability.runs import make_job, read_run
from schnet_ase.uncertainty.calibration import FALSE_FLAG_RATE

RATES = (FALSE_FLAG_RATE, 0.01, 0.05)
"""False-flag rates; the first is the monitor's own."""


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entry")
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("training", type=click.Path(path_type=Path))
@click.option("--temperature", default=500.0, show_default=True, type=click.FloatRange(0.0, min_open=True), help="K.")
@click.option("--hot", default=1500.0, show_default=True, type=click.FloatRange(0.0, min_open=True), help="K.")
@click.option("--picoseconds", default=300.0, show_default=True, type=click.FloatRange(0.001))
@click.option(
    "--hot-picoseconds",
    default=20.0,
    show_default=True,
    type=click.FloatRange(0.001),
    help="Largest length of a heated run.",
)
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--hot-seeds", default=20, show_default=True, type=click.IntRange(1))
@click.option(
    "--starts", default=20, show_default=True, type=click.IntRange(0), help="Frames of DATA to pull bonds of."
)
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1), help="Processes at once.")
@click.option("--runs", type=click.Path(path_type=Path), help="Where runs are kept.  [default: runs/stability-ENTRY]")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for stability-ENTRY.md and .png.")
@exit_on_error
def main(
    entry: str,
    data: Path,
    training: Path,
    temperature: float,
    hot: float,
    picoseconds: float,
    hot_picoseconds: float,
    seeds: int,
    hot_seeds: int,
    starts: int,
    workers: int,
    runs: Path | None,
    output: Path | None,
) -> None:
    card, calibration = calibrated(entry)
    relaxed = card.structure.atoms()
    frames, trained = (positions_in(file, relaxed) for file in (data, training))
    bonds = find_bonds(relaxed, frames)
    threshold = calibration.threshold(RATES[0])
    calm = [make_job(card, card, temperature, picoseconds, seed, bonds=bonds) for seed in range(seeds)]
    heated = [
        make_job(card, card, temperature, hot_picoseconds, seed, bonds=bonds, heated_to=hot)
        for seed in range(hot_seeds)
    ]
    folder = runs or Path("runs") / f"stability-{card.name}"
    done = {job.file: run for job in (*heated, *calm) if (run := read_run(job, folder)) is not None}
    missing = [job for job in (*heated, *calm) if job.file not in done]

    some = frames[np.linspace(0, len(frames) - 1, min(starts, len(frames)), dtype=int)]
    structures = [relaxed, *(Atoms(relaxed.numbers, positions) for positions in some)]
    in_training = find_bonds(relaxed, trained, shared_protons=False)
    with Progress(len(structures) * len(in_training.mean), "pulls", "pull") as progress:
        models = [loaded.model for loaded in locate_members(entry)]
        longest = in_training.lengths(trained).max(axis=0)
        pulls = pull_bonds(models, structures, in_training, longest, progress.update)

    def page() -> str:
        results = Results(
            card.name,
            [(rate, calibration.threshold(rate)) for rate in RATES],
            temperature,
            hot,
            *(
                [Watched.by(job.seed, done[job.file], threshold) for job in jobs if job.file in done]
                for jobs in (calm, heated)
            ),
            pulls,
            distance_counts(frames),
            # Half the difference between two halves, since each has half the frames and both have errors.
            distribution_error(distance_counts(frames[::2]), distance_counts(frames[1::2])) / 2,
        )
        text = markdown(results, conditions(), f"stability-{card.name}.png")
        if output is not None:  # after each run, so that an interruption leaves the results so far
            atomic_write(output / f"stability-{card.name}.md", text)
            draw(results, output / f"stability-{card.name}.png")
        return text

    page()
    with Progress(sum(job.steps for job in missing), "stability") as progress:
        for job, run in run_jobs(missing, folder, workers, progress):
            done[job.file] = run
            kind = f"{job.temperature:g} K" if job.heated_to is None else f"heated to {job.heated_to:g} K"
            end = "collapsed after" if run.collapsed else "whole after"
            progress.print(f"{kind}, seed {job.seed}: {end} {run.picoseconds:.3f} ps")
            page()
    print(page())


def positions_in(file: Path, atoms: Atoms) -> Floats:
    """Return the positions (B, N, 3) in Å of the frames in a file, which must be of the molecule `atoms`."""
    frames = [frame.geometry for frame in read_dataset(file).frames]
    for index, frame in enumerate(frames):
        if not np.array_equal(frame.numbers, atoms.numbers):
            raise DataError(
                f"{file}: frame {index} has the atomic numbers {frame.numbers.tolist()}; expected "
                f"{atoms.numbers.tolist()}, those of the entry's structure, in that order"
            )
    return np.array([frame.positions for frame in frames])


if __name__ == "__main__":
    main()
