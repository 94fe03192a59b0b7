"""The command that makes one network of an ensemble."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from schnet_ase.cli.common import label_options, print_errors


def _range(context: click.Context, option: click.Parameter, text: str) -> tuple[float, float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    match numbers:
        case [only]:
            return only, only
        case [lowest, highest]:
            return lowest, highest
    raise click.BadParameter(f"{text} is no temperature, as 500, nor a range, as 300,1000, in K")


@click.command()
@click.argument("entry")
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--frames", default=10_000, show_default=True, type=click.IntRange(2), help="Of the dynamics, in all.")
@click.option(
    "--temperatures",
    default="300,1000",
    show_default=True,
    callback=_range,
    metavar="LO,HI",
    help="Of the dynamics, K; the runs' are spread evenly.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of dynamics and training.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder of the data of ENTRY.  [default: not used]")
@label_options
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/ENTRY-student]")
@click.option(
    "--models",
    "models_folder",
    type=click.Path(path_type=Path),
    help="Folder for a copy of ENTRY that keeps the student.  [default: ENTRY itself keeps it]",
)
@click.option("--device", default="cpu", show_default=True)
def distill(
    entry: str,
    config: Path | None,
    frames: int,
    temperatures: tuple[float, float],
    seed: int,
    data_root: Path | None,
    labels: dict[str, Any],
    output: Path | None,
    models_folder: Path | None,
    device: str,
) -> None:
    """Make one network, the student, that gives the mean of the members of ENTRY; the same command resumes.

    It learns from frames of the ensemble's own dynamics, which the ensemble labels, and is kept in the entry, where
    SchNetCalculator(ENTRY) takes it. CONFIG is a TOML file with a table [model], which changes the architecture of the
    members, and a table [training], either or both, as for train. With --data-root the frames that the members learned
    from are added, and errors are measured on the test frames of the entry's card.
    """
    from schnet_ase.data import LabelOptions
    from schnet_ase.output.progress import Stages
    from schnet_ase.training.distill import Sampling, distill, load_student_config

    labels.pop("exclude")
    sampling = Sampling(frames, temperatures, seed)
    student = load_student_config(entry, config)
    folder = output or Path("runs") / f"{Path(entry).resolve().name}-student"
    with Stages() as stages:
        made = distill(
            entry,
            folder,
            student,
            sampling=sampling,
            data_root=data_root,
            labels=LabelOptions(**labels),
            models=models_folder,
            device=device,
            command=shlex.join(["schnet-ase", *sys.argv[1:]]),
            report=stages.update,
        )
    print_errors("student against the mean of the members, on runs kept apart", made.student.validation)
    if made.student.test is not None:
        print_errors("student on test frames", made.student.test)
        ratio = made.student.ratio(made.card.metrics.test)
        print("" if ratio is None else f"force MAE {ratio:.3f} times that of the mean of {len(made.card.members)}")
    if (held := made.student.held()) is not None:
        print(held)
    print(f"wrote {made.card.path / made.student.file}; use it as SchNetCalculator({str(made.card.path)!r})")
