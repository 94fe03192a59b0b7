"""Loss and gradient of the folds of a cross-validation side by side against one after the other, taking turns.

The network is that of _start.py, each fold's batch is of jiggled molecules. One after the other they have filters
interpolated where a training would have them so, side by side a network for every pair. The largest difference between
the gradients, relative to the largest gradient of each parameter, is printed too.

    python benchmarks/train_together.py --device cuda
"""

from __future__ import annotations

import statistics
import time

import click
import torch
from _report import conditions, exit_on_error, table
from _start import NETWORK
from _systems import MOLECULES, labelled_frames
from ase import Atoms

from schnet_ase import SchNet
from schnet_ase.data import Frame
from schnet_ase.data.batches import Batch, batch_to, collate, make_training_examples
from schnet_ase.errors import SchNetError
from schnet_ase.geometry.system import geometry
from schnet_ase.inference.device import resolve_device
from schnet_ase.training import TrainingConfig
from schnet_ase.training.step.compiled import can_compile
from schnet_ase.training.step.loss import GradientStep
from schnet_ase.training.step.padding import side_by_side
from schnet_ase.training.step.side_by_side import SideBySide
from schnet_ase.training.step.steps import Steps, step_maker

WAYS = ("eager", "compiled")


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--device", default="cpu", show_default=True)
@click.option("--folds", default=5, show_default=True, type=click.IntRange(2))
@click.option("--batch", default=10, show_default=True, type=click.IntRange(1))
@click.option("--rounds", default=9, show_default=True, type=click.IntRange(1))
@click.option("--steps", default=20, show_default=True, type=click.IntRange(1), help="Of each, in a round.")
@click.option("--way", "ways", type=click.Choice(WAYS), multiple=True, help="[default: both]")
@exit_on_error
def main(device: str, folds: int, batch: int, rounds: int, steps: int, ways: tuple[str, ...]) -> None:
    ways = ways or WAYS
    if "compiled" in ways and not can_compile():
        raise SchNetError("no C++ compiler; expected one for the compiled step: install g++ or clang++")
    torch.set_num_threads(1)
    place = resolve_device(device)
    rows = []
    for name in MOLECULES:
        frames = labelled_frames(name, folds * batch)
        batches = [make_batch(frames[k::folds]) for k in range(folds)]
        for way in ways:
            training = TrainingConfig(compile=way == "compiled")
            models = [make_model(k).to(place) for k in range(folds)]
            own = [batch_to(b, place) for b in batches]
            alone = [Steps(model, training, same_shape=True).current() for model in models]
            expected = [gradient(step, model, b) for step, model, b in zip(alone, models, own, strict=True)]
            joint = SideBySide(models)
            whole = batch_to(side_by_side(batches), place)
            together = step_maker(training, 0.0, same_shape=True)(joint)
            together(whole)
            joint.hand_out_gradients()
            difference = max(map(largest_difference, models, expected))
            turns = (list(zip(alone, own, strict=True)), [(together, whole)])
            times = [[milliseconds(turn, steps) for turn in turns] for _ in range(rounds)]
            one, other = (statistics.median(column) for column in zip(*times, strict=True))
            rows.append((name, way, f"{one:.1f}", f"{other:.1f}", f"{one / other:.2f}", f"{difference:.0e}"))
    header = ("molecule", "way", "one after the other (ms)", "side by side (ms)", "times faster", "ΔG rel.")
    print(f"The network of _start.py, {folds} folds, batches of {batch}, {place}: {conditions()}\n")
    print(table(header, rows))


def make_batch(labelled: list[Atoms]) -> Batch:
    frames = [Frame(geometry(a), a.get_potential_energy(), a.get_forces()) for a in labelled]
    return collate(make_training_examples(frames, range(len(frames)), NETWORK.pair_cutoff))


def make_model(seed: int) -> SchNet:
    torch.manual_seed(seed)
    return SchNet(NETWORK)


def gradient(step: GradientStep, model: SchNet, batch: Batch) -> list[torch.Tensor]:
    step(batch)
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def largest_difference(model: SchNet, expected: list[torch.Tensor]) -> float:
    found = [p.grad for p in model.parameters() if p.grad is not None]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True) if b.any())


def milliseconds(turn: list[tuple[GradientStep, Batch]], steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        for step, batch in turn:
            step(batch).tolist()  # as a training looks at its loss, and a GPU has then ended
    return 1000.0 * (time.perf_counter() - start) / steps


if __name__ == "__main__":
    main()
