"""A training step with filters interpolated against one with a filter network for every pair, taking turns.

The network is that of _start.py, the frames are jiggled molecules. Both steps are compiled and run on the same batch;
the largest difference between their gradients, relative to the largest gradient of each parameter, is printed too.

    python benchmarks/train_filters.py
"""

from __future__ import annotations

import statistics
import time

import click
import torch
from _report import conditions, exit_on_error, table
from _start import NETWORK
from _systems import MOLECULES, labelled_frames

from schnet_ase import SchNet
from schnet_ase.data import Frame
from schnet_ase.data.batches import Batch, collate, make_training_examples
from schnet_ase.errors import SchNetError
from schnet_ase.geometry.system import geometry
from schnet_ase.training.step.compiled import can_compile, compiled_step
from schnet_ase.training.step.filters import InterpolatedSchNet, terms_for
from schnet_ase.training.step.loss import GradientStep, LossTerms


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--batch", default=10, show_default=True, type=click.IntRange(1))
@click.option("--rounds", default=9, show_default=True, type=click.IntRange(1))
@click.option("--steps", default=20, show_default=True, type=click.IntRange(1), help="Of each, in a round.")
@exit_on_error
def main(batch: int, rounds: int, steps: int) -> None:
    if not can_compile():
        raise SchNetError("no C++ compiler; expected one for the compiled step: install g++ or clang++")
    torch.set_num_threads(1)
    rows = []
    for name in MOLECULES:
        torch.manual_seed(0)
        model = SchNet(NETWORK)
        terms = terms_for(model)
        assert terms is not None
        exact = compiled_step(model, LossTerms(0.01, 1.0))
        interpolated = compiled_step(InterpolatedSchNet(model, terms), LossTerms(0.01, 1.0))
        frames = [Frame(geometry(a), a.get_potential_energy(), a.get_forces()) for a in labelled_frames(name, batch)]
        examples = collate(make_training_examples(frames, range(batch), model.config.pair_cutoff))
        difference = gradient_difference(model, exact, interpolated, examples)
        times = [[milliseconds(step, examples, steps) for step in (exact, interpolated)] for _ in range(rounds)]
        one, other = (statistics.median(column) for column in zip(*times, strict=True))
        pairs = len(examples.graph.pairs.first)
        rows.append((name, pairs, terms, f"{one:.1f}", f"{other:.1f}", f"{one / other:.2f}", f"{difference:.0e}"))
    header = ("molecule", "pairs", "terms", "a network a pair (ms)", "interpolated (ms)", "times faster", "ΔG rel.")
    print(f"The network of _start.py, batches of {batch}, one thread: {conditions()}\n")
    print(table(header, rows))


def milliseconds(step: GradientStep, batch: Batch, steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        step(batch)
    return 1000.0 * (time.perf_counter() - start) / steps


def gradient_difference(model: SchNet, exact: GradientStep, interpolated: GradientStep, batch: Batch) -> float:
    gradients = []
    for step in (exact, interpolated):
        step(batch)
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(*gradients, strict=True) if a.any())


if __name__ == "__main__":
    main()
