"""Commands that train: one model, an ensemble, a search over settings, and learning on the fly."""

from __future__ import annotations

import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from schnet_ase.cli.common import print_calibration, print_card_errors, print_errors


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/NAME]")
@click.option(
    "--models", "models_folder", type=click.Path(path_type=Path), help="Where to register it.  [default: nowhere]"
)
@click.option("--data-root", type=click.Path(path_type=Path), help="Where relative data paths start.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--initial", help="Trained weights to start from: an entry, a run (a folder) or a file.")
def train(
    config: Path,
    output: Path | None,
    models_folder: Path | None,
    data_root: Path | None,
    device: str,
    initial: str | None,
) -> None:
    """Train one model from the TOML file CONFIG; the same command resumes an interrupted training.

    If torchrun starts several processes, they train the model together.
    """
    from schnet_ase.output.progress import Progress
    from schnet_ase.registry.provenance import Row
    from schnet_ase.training import load_config, train_from_config
    from schnet_ase.training.history import describe
    from schnet_ase.training.processes import torchrun_processes

    with torchrun_processes(device) as processes:
        run = processes.agree(lambda: load_config(config, data_root, initial))
        folder = output or Path("runs") / run.name
        if processes.rank:
            train_from_config(run, folder, models=models_folder, initial=initial, device=device, processes=processes)
            return
        with Progress(run.training.steps, run.name) as progress:

            def report(step: int, row: Row | None) -> None:
                progress.update(step - progress.done, "" if row is None else describe(row))

            result = train_from_config(
                run,
                folder,
                models=models_folder,
                initial=initial,
                device=device,
                processes=processes,
                command=shlex.join(["schnet-ase", *sys.argv[1:]]),
                report=report,
            )
    print_errors(f"validation of the best weights, step {result.best.step}", result.best.errors)
    if result.test is not None:
        print_errors("test", result.test)
    print(f"wrote {result.path}, {folder}/metrics.csv, {folder}/learning_curve.png")
    if models_folder is not None:
        print(f"wrote {models_folder / run.name}; use it as SchNetCalculator({str(models_folder / run.name)!r})")


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/NAME]")
@click.option("--models", "models_folder", type=click.Path(path_type=Path), help="Folder in which to write the entry.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Where relative data paths start.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--initial", help="Run (a folder) or entry whose folds' weights to start from.")
@click.option(
    "--workers", type=click.IntRange(1), help="Folds trained at once.  [default: one per core; on a GPU all, as one]"
)
@click.option(
    "--executor",
    default="processes",
    show_default=True,
    type=click.Choice(["processes", "ray"]),
    help="Where the folds train.",
)
@click.option("--ray-address", help="Ray cluster to train on.  [default: one on this machine]")
def crossval(
    config: Path,
    output: Path | None,
    models_folder: Path | None,
    data_root: Path | None,
    device: str,
    initial: str | None,
    workers: int | None,
    executor: Any,
    ray_address: str | None,
) -> None:
    """Train an ensemble by cross-validation from CONFIG and register it; the same command resumes."""
    from schnet_ase.errors import TrainingError
    from schnet_ase.output.progress import Progress
    from schnet_ase.registry.lookup import user_models
    from schnet_ase.training import FoldProgress, load_config
    from schnet_ase.training import crossval as run_crossval
    from schnet_ase.training.history import describe
    from schnet_ase.training.processes import torchrun_processes

    with torchrun_processes("cpu") as processes:
        if processes.size > 1:
            raise TrainingError("crossval trains its folds side by side by itself; start it without torchrun")
    run = load_config(config, data_root, initial)
    folder = output or Path("runs") / run.name
    done = [0] * run.folds
    with Progress(run.folds * run.training.steps, run.name) as progress:

        def report(fold: FoldProgress) -> None:
            done[fold.fold - 1] = fold.step
            note = "" if fold.row is None else f"fold {fold.fold} step {fold.step}: {describe(fold.row)}"
            progress.update(sum(done) - progress.done, note)

        card = run_crossval(
            run,
            folder,
            models_folder or user_models(),
            initial=initial,
            device=device,
            workers=workers,
            executor=executor,
            ray_address=ray_address,
            command=shlex.join(["schnet-ase", *sys.argv[1:]]),
            report=report,
        )
    print_card_errors(card)
    print_calibration(card)
    print(f"the entry is {card.path}; use it as SchNetEnsembleCalculator({str(card.path)!r})")


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the search.  [default: runs/NAME-tune]")
@click.option("--data-root", type=click.Path(path_type=Path), help="Where relative data paths start.")
@click.option("--device", default="cpu", show_default=True)
@click.option(
    "--executor",
    default="sequential",
    show_default=True,
    type=click.Choice(["sequential", "ray"]),
    help="Where the trials train.",
)
@click.option("--workers", type=click.IntRange(1), help="With Ray, trials trained at once.  [default: one per core]")
@click.option("--ray-address", help="Ray cluster to train on.  [default: one on this machine]")
def tune(
    config: Path,
    output: Path | None,
    data_root: Path | None,
    device: str,
    executor: Any,
    workers: int | None,
    ray_address: str | None,
) -> None:
    """Search the settings that table [tune] of CONFIG names, on fold 1 of crossval; the same command resumes."""
    from schnet_ase.output.progress import Progress, Stages
    from schnet_ase.training import TrialProgress, load_config
    from schnet_ase.training import tune as run_tune
    from schnet_ase.training.history import describe

    run = load_config(config, data_root)
    folder = output or Path("runs") / f"{run.name}-tune"
    done: dict[int, int] = {}
    # For parallel trials the bar counts the steps of all; their total is not known, because some end early.
    with Stages() as stages, Progress(None, run.name) if executor == "ray" else nullcontext() as together:

        def report(at: TrialProgress) -> None:
            row = "" if at.row is None else describe(at.row)
            if together is None:
                stages.update(f"trial {at.trial}", at.step, at.steps, row)
                return
            done[at.trial] = at.step
            together.update(sum(done.values()) - together.done, row and f"trial {at.trial} step {at.step}: {row}")

        result = run_tune(
            run,
            folder,
            device=device,
            executor=executor,
            workers=workers,
            ray_address=ray_address,
            report=report,
            finished=lambda trial: (together or stages).print(trial.describe()),
        )
    best, states = result.best, [trial.state for trial in result.trials]
    print(f"best of {len(states)} trials, {states.count('pruned')} pruned, {states.count('failed')} failed:")
    print(best.describe())
    print(f"wrote {folder}/best.toml, {folder}/trials.csv, {folder}/trials.png")
    ensemble = ["schnet-ase", "crossval", str(folder / "best.toml"), "--output", str(folder / best.folder)]
    print(f"for the ensemble, whose fold 1 is trained: {shlex.join(ensemble)}")


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/NAME]")
@click.option(
    "--data-root", type=click.Path(path_type=Path), help="Where the relative path of the first frames starts."
)
@click.option("--workers", type=click.IntRange(1), help="Members trained at once.  [default: one per core]")
def learn(config: Path, output: Path | None, data_root: Path | None, workers: int | None) -> None:
    """Learn on the fly from CONFIG: dynamics, flags, labels, retraining; the same command resumes."""
    from schnet_ase.learn import learn as run_learn
    from schnet_ase.learn import load_learn_config
    from schnet_ase.learn.audit import Event, Labelled, describe
    from schnet_ase.output.progress import Stages

    run = load_learn_config(config, data_root)
    folder = output or Path("runs") / run.name
    sys.path.insert(0, str(config.parent.resolve()))  # a user's own reference may lie there, beside the file
    with Stages() as stages:

        def report(event: Event) -> None:
            if not (isinstance(event, Labelled) and event.flag is None):  # the first frames get one line together
                stages.print(describe(event))

        result = run_learn(run, folder, workers=workers, report=report, progress=stages.update)
    end, many = result.end, "" if result.end.generations == 1 else "s"
    print(f"finished after {end.reason}: {end.labels} labels, {end.generations} generation{many}")
    written = [result.labels, result.audit, result.audit.with_name("learning.png")]
    print(f"wrote {', '.join(str(path) for path in written if path.exists())}")
    use = "the ensemble so far, not yet fit for dynamics, is" if result.doubts else "use it as"
    print(f"{use} SchNetEnsembleCalculator({str(result.ensemble)!r})")
