"""Memory and time of a training on many molecules, read from disk when they are needed and held in memory.

Writes molecules of QM9's sizes (9 to 27 atoms, 18 on average; energies alone) to a file and trains on them as
`schnet-ase train` does, each way in a process of its own.

\b
    python benchmarks/streaming.py
    python benchmarks/streaming.py --frames 5000 --steps 20
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import click
import torch
from _report import exit_on_error, table
from _systems import molecules
from ase.data import chemical_symbols

from schnet_ase.data.store import CACHE_VARIABLE
from schnet_ase.training import load_config, train_from_config
from schnet_ase.training.history import Row

TOML = """
name = "molecules"
[data]
file = "molecules.extxyz"
validation = 500
[model]
preset = "md"
[training]
steps = {steps}
batch_size = 32
validate_every = {steps}
energy_weight = 1.0
force_weight = 0.0
"""
HEADER = ("frames", "way", "before the first step (s)", "ms/step", "peak MB", "of which its own")


class Measured(NamedTuple):
    """One training."""

    seconds_before: float
    """Reading, storing, checking: until the first step is done."""
    ms_per_step: float
    peak_mb: float
    """Resident, libraries and what is mapped from files included."""
    own_mb: float
    """Largest part of it that the system cannot drop."""


def write_molecules(file: Path, n_frames: int) -> None:
    """An extended XYZ file, written as text: ASE's writer takes longer than the training."""
    with open(file, "w") as stream:
        for frame in molecules(n_frames):
            numbers, positions, _, _ = frame.geometry
            head = f'{len(numbers)}\nProperties=species:S:1:pos:R:3 energy={frame.energy!r} pbc="F F F"\n'
            rows = (
                f"{chemical_symbols[z]} {x:.8f} {y:.8f} {w:.8f}\n"
                for z, (x, y, w) in zip(numbers, positions.tolist(), strict=True)
            )
            stream.write(head + "".join(rows))


def measure(folder: Path, stream: bool) -> Measured:
    """Train in this process."""
    torch.set_num_threads(1)
    config = load_config(folder / "run.toml")
    config = replace(config, data=replace(config.data, stream=stream))
    times, own = [], 0.0

    def report(step: int, row: Row | None) -> None:
        nonlocal own
        if row is None:
            times.append(time.monotonic())
            own = max(own, _memory("RssAnon"))

    start = time.monotonic()
    train_from_config(config, folder / f"run-{stream}-{time.time_ns()}", report=report)
    steps = (times[-1] - times[0]) / (len(times) - 1)
    return Measured(times[0] - start, 1000.0 * steps, _memory("VmHWM"), own)


def _memory(field: str) -> float:
    """MB, of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1000.0


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--frames", default=100_000, show_default=True, type=click.IntRange(1000))
@click.option("--steps", default=100, show_default=True, type=click.IntRange(3))
@exit_on_error
def main(frames: int, steps: int) -> None:
    """Print memory and time of both ways."""
    print(table(HEADER, ()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_molecules(folder / "molecules.extxyz", frames)
        (folder / "run.toml").write_text(TOML.format(steps=steps))
        for label, stream in (("stored now", True), ("stored before", True), ("in memory", False)):
            done = subprocess.run(
                [sys.executable, __file__, str(folder), json.dumps(stream)],
                env={**os.environ, CACHE_VARIABLE: str(folder / "cache")},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            m = Measured(*json.loads(done.stdout.splitlines()[-1]))
            row = (
                frames,
                label,
                f"{m.seconds_before:.1f}",
                f"{m.ms_per_step:.1f}",
                f"{m.peak_mb:.0f}",
                f"{m.own_mb:.0f}",
            )
            print("| " + " | ".join(map(str, row)) + " |", flush=True)
        size = sum(f.stat().st_blocks * 512 for f in (folder / "cache").rglob("*")) / 1e6
        print(f"\nfile {(folder / 'molecules.extxyz').stat().st_size / 1e6:.0f} MB, store {size:.0f} MB on disk")


if __name__ == "__main__":
    if len(sys.argv) == 3 and Path(sys.argv[1]).is_dir():  # the process that is measured
        print(json.dumps(measure(Path(sys.argv[1]), json.loads(sys.argv[2]))))
    else:
        main()
