"""Errors and speed of students of several sizes of one entry, all distilled from the same frames.

    python benchmarks/students.py rmd17-ethanol --data-root data/rmd17 --output students

Each size is interactions × features of the members' architecture. Students are kept in copies of the entry in OUTPUT,
and the same command resumes. The table ends with the best member and the mean of all, with the errors from the card.
Times are those of velocity Verlet on one thread, with the networks in turns; the time of the mean is the sum of those
of the members.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import click
from _report import conditions, exit_on_error, table

from schnet_ase import SchNet
from schnet_ase.cli.common import mev
from schnet_ase.output.files import atomic_write
from schnet_ase.output.progress import Stages
from schnet_ase.registry.loading import locate, locate_members
from schnet_ase.stability.times import milliseconds_per_step
from schnet_ase.training.distill import Distillation, Sampling, distill, load_student_config
from schnet_ase.uncertainty.metrics import Errors

HEADER = (
    "network",
    "parameters",
    "force MAE, test (meV/Å)",
    "in that of the mean",
    "energy MAE, test (meV)",
    "force MAE against the mean (meV/Å)",
    "ms a step",
)


def student(
    entry: str, size: str, folder: Path, sampling: Sampling, data_root: Path, steps: int | None
) -> Distillation:
    """Distil the student of one size, from the same frames as the earlier sizes."""
    interactions, features = (int(number) for number in size.split("x"))
    config = load_student_config(entry)
    config = replace(config, model=replace(config.model, n_interactions=interactions, n_features=features))
    if steps is not None:
        config = replace(config, training=replace(config.training, steps=steps))
    run, shared = folder / size, folder / "frames"
    if shared.exists() and not (run / "frames").exists():
        shutil.copytree(shared, run / "frames")
    with Stages() as stages:
        made = distill(
            entry,
            run,
            config,
            sampling=sampling,
            data_root=data_root,
            models=run / "models",
            command=shlex.join(["python", "benchmarks/students.py", *sys.argv[1:]]),
            report=lambda stage, *rest: stages.update(f"{size} {stage}", *rest),
        )
    if not shared.exists():
        shutil.copytree(run / "frames", folder / ".frames")
        (folder / ".frames").rename(shared)
    return made


def row(
    name: str, parameters: int, test: Errors | None, mean: Errors | None, against: str, milliseconds: float
) -> list[str]:
    """Return a row of the table."""
    force, of = (None if errors is None else errors.force_mae for errors in (test, mean))
    ratio = "–" if force is None or not of else f"{force / of:.3f}"
    energy = None if test is None else test.energy_mae
    return [name, f"{parameters:,}", mev(force), ratio, mev(energy), against, f"{milliseconds:.3f}"]


def n_parameters(model: SchNet) -> int:
    """Return the number of trainable parameters of a network."""
    return sum(p.numel() for p in model.parameters())


def page(entry: str, made: dict[str, Distillation]) -> str:
    """Return the page with the table, including the entry's members."""
    members, best = locate_members(entry), locate(entry, student=False)
    card = next(iter(made.values())).card
    files = [*(m.card.path / m.student.file for m in made.values()), *(member.path for member in members)]
    times = milliseconds_per_step(card.structure.atoms(), files)
    mean, single = card.metrics.test, n_parameters(best.model)
    rows = [
        row(size, n_parameters(m.training.model), m.student.test, mean, mev(m.student.validation.force_mae), t)
        for (size, m), t in zip(made.items(), times, strict=False)
    ]
    of_members = times[len(made) :]
    k = [member.path for member in members].index(best.path)
    rows += [
        row("best member", single, card.best.test, mean, "–", of_members[k]),
        row(f"mean of {len(members)}", single * len(members), mean, mean, "–", sum(of_members)),
    ]
    return f"{table(HEADER, rows)}\n\n{conditions()}\n"


def _sizes(context: click.Context, option: click.Parameter, text: str) -> list[str]:
    sizes = text.split(",")
    for size in sizes:
        if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", size):
            raise click.BadParameter(f"{size!r} is no size; expected interactions and features, as 6x64")
    return sizes


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entry")
@click.option("--sizes", default="2x32,3x64,6x64,6x96,6x128", show_default=True, callback=_sizes)
@click.option("--frames", default=10_000, show_default=True, type=click.IntRange(2))
@click.option("--temperatures", nargs=2, type=float, default=(300.0, 1000.0), show_default=True, help="K.")
@click.option("--steps", type=click.IntRange(1), help="Steps of each training.  [default: that of schnet-ase distill]")
@click.option("--seed", default=0, show_default=True)
@click.option("--data-root", required=True, type=click.Path(path_type=Path), help="Folder of the entry's data.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder.")
@exit_on_error
def main(
    entry: str,
    sizes: list[str],
    frames: int,
    temperatures: tuple[float, float],
    steps: int | None,
    seed: int,
    data_root: Path,
    output: Path,
) -> None:
    sampling = Sampling(frames, temperatures, seed)
    made = {size: student(entry, size, output, sampling, data_root, steps) for size in sizes}
    text = page(entry, made)
    atomic_write(output / "students.md", text)
    print(text, end="")


if __name__ == "__main__":
    main()
