"""The command line: thin, every command a function of the package with its result printed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import click

from schnet_ase.errors import SchNetError, StructureError

if TYPE_CHECKING:
    from ase import Atoms

    from schnet_ase.card import Card
    from schnet_ase.metrics import Errors

# Torch, ASE and matplotlib are imported where a command needs them: `--help` and a mistyped option answer at once.


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="schnet_ase")
def cli() -> None:
    """SchNet potentials for ASE: molecular dynamics, optimization, training. Units: eV, Å, fs, K."""


def main() -> NoReturn:
    """Entry point: exit status 0, or 2 with one line for a user's mistake."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        print("schnet-ase: interrupted; what was written stays", file=sys.stderr)
        sys.exit(130)
    except (SchNetError, OSError) as error:
        _fail(str(error))
    sys.exit(0)


def _fail(message: str) -> NoReturn:
    print(f"schnet-ase: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _calculator_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--device", help="cpu or cuda; default: cuda where it is there."),
        click.option("--dtype", type=click.Choice(["float32", "float64"]), help="Of the network."),
    ):
        command = option(command)
    return command


def _label_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--exclude", type=click.Path(path_type=Path), help="List of molecules of QM9 to leave out."),
        click.option("--forces-key", help="Name of the forces, where it is not the format's own."),
        click.option("--energy-key", help="Name of the energies, where it is not the format's own."),
        click.option("--energy-unit", type=click.Choice(["eV", "kcal/mol", "Hartree"]), help="Default: the format's."),
    ):
        command = option(command)
    return command


def _output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--output", type=click.Path(path_type=Path), help="Prefix of the files written."),
        click.option("--overwrite", is_flag=True, help="Replace files of an earlier run."),
    ):
        command = option(command)
    return command


@cli.group(invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """List the models that can be used by name, and those that can be had."""
    if context.invoked_subcommand is not None:
        return
    from schnet_ase.registry import list_models, listings

    installed = list_models()
    for card in installed:
        test = card.metrics.test
        errors = "" if test is None else f"  test MAE {_mev(test.energy_mae)} meV, {_mev(test.force_mae)} meV/Å"
        print(f"{card.name:24s} {len(card.members)} members  {' '.join(card.elements):12s}{errors}")
    others = [x for _, x in sorted(listings().items()) if x.name not in {card.name for card in installed}]
    for x in others:
        command = f"schnet-ase models get {x.name}{'' if x.address else ' --from FOLDER'}"
        print(f"{x.name:24s} {x.size / 1e6:6.1f} MB  {' '.join(x.elements):12s}  not installed: {command}")
    if any(x.address is None for x in others):
        print("FOLDER: models/NAME in the source repository of schnet_ase, or any folder or https address of the entry")


@models.command("show")
@click.argument("name")
def models_show(name: str) -> None:
    """Print the card of the model NAME."""
    from schnet_ase.registry import get_card

    card = get_card(name)
    data = card.data
    print(f"{card.name}: {data.description}")
    for label, text in (
        ("folder", card.path),
        ("elements", " ".join(card.elements)),
        ("level of theory", data.level_of_theory),
        ("temperature", data.temperature),
        ("training data", f"{data.file}, {data.n_frames} frames ({data.licence})"),
        ("split", data.split),
        ("made by", card.command),
        ("made with", ", ".join(f"{k} {v}" for k, v in card.versions.items())),
    ):
        print(f"  {label:16s} {text}")
    print(f"  {'MAE':28s} energy (meV)   force (meV/Å)")
    rows: list[tuple[str, Errors | None]] = []
    for member in card.members:
        stem = Path(member.file).stem
        rows += [(f"{stem}, validation", member.validation), (f"{stem}, test", member.test)]
    rows += [("ensemble, calibration", card.metrics.calibration), ("ensemble, test", card.metrics.test)]
    for label, errors in rows:
        if errors is not None:
            print(f"  {label:28s} {_mev(errors.energy_mae):>12s}   {_mev(errors.force_mae):>13s}")
    _print_calibration(card)
    if card.dynamics is not None:
        print("\n".join(card.dynamics.lines()))


@models.command("get")
@click.argument("name")
@click.option("--from", "source", help="Folder or https address of its files.  [default: that of the index]")
@click.option("--sha256", help="Of its card.json.  [default: that of the index]")
def models_get(name: str, source: str | None, sha256: str | None) -> None:
    """Install the model NAME in your data folder, whole or not at all; the same command resumes."""
    from schnet_ase.download import install_entry

    card = install_entry(name, source, sha256=sha256)
    print(f"{card.name}: {len(card.members)} members in {card.path}")


@models.command("index")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--address", help="Where a copy of FOLDER can be got.  [default: what the index says]")
def models_index(folder: Path, address: str | None) -> None:
    """Write the index of the entries in FOLDER, so that others can list and get them."""
    from schnet_ase.index import INDEX_FILE, write_index

    listings = write_index(folder, address)
    print(f"wrote {folder / INDEX_FILE}: {', '.join(x.name for x in listings)}")


@cli.command()
@click.argument("model", required=False)
def info(model: str | None) -> None:
    """Print versions, devices, where models are looked for, and which engine MODEL gets."""
    from importlib.metadata import version

    import torch

    from schnet_ase.calculator import SchNetCalculator
    from schnet_ase.registry import search_path

    calculator = None if model is None else SchNetCalculator(model)  # first: it may not be there
    for name in ("schnet_ase", "torch", "ase", "numpy", "numba", "matscipy"):
        print(f"{name:12s} {version(name)}")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    print(f"{'device':12s} {device}")
    if calculator is not None:
        print(f"{'engine':12s} {calculator.engine.name}: {calculator.engine.reason}")
    print(f"{'models in':12s} " + f"\n{'':12s} ".join(str(p) for p in search_path() if p.is_dir()))


@cli.command()
@click.argument("model")
@click.argument("structure", required=False, type=click.Path(path_type=Path))
@click.option("--steps", default=2000, show_default=True, type=click.IntRange(1))
@click.option("--timestep", default=0.5, show_default=True, type=click.FloatRange(0, min_open=True), help="fs.")
@click.option("--temperature", default=300.0, show_default=True, type=click.FloatRange(0), help="K.")
@click.option("--thermostat", is_flag=True, help="Langevin dynamics (NVT); default: velocity Verlet (NVE).")
@click.option("--friction", default=10.0, show_default=True, type=click.FloatRange(0), help="Thermostat's, 1/ps.")
@click.option("--seed", default=0, show_default=True, help="Of velocities and thermostat.")
@click.option("--interval", default=10, show_default=True, type=click.IntRange(1), help="Steps between rows.")
@click.option("--monitor", is_flag=True, help="Flag uncertain frames, and keep them.")
@click.option("--threshold", type=float, help="Of the monitor, eV/Å.  [default: from the ensemble's calibration]")
@click.option("--stop", is_flag=True, help="With --monitor: end the run at the first flagged frame.")
@_calculator_options
@_output_options
def md(
    model: str,
    structure: Path | None,
    steps: int,
    timestep: float,
    temperature: float,
    thermostat: bool,
    friction: float,
    seed: int,
    interval: int,
    monitor: bool,
    threshold: float | None,
    stop: bool,
    device: str | None,
    dtype: str | None,
    output: Path | None,
    overwrite: bool,
) -> None:
    """Run molecular dynamics with MODEL on STRUCTURE (any file ASE reads; default: the model's own molecule)."""
    from schnet_ase.errors import MonitorError, UncertaintyExceeded
    from schnet_ase.monitor import UncertaintyMonitor
    from schnet_ase.progress import Progress
    from schnet_ase.simulate import MDRow, run_md

    if not monitor and (stop or threshold is not None):
        raise MonitorError("--threshold and --stop belong to a monitor; add --monitor")
    watched = ("-flagged.extxyz", "-uncertainty.csv") if monitor else ()
    prefix = _free(output or Path(f"{_stem(model)}-md"), (".traj", ".csv", ".png", *watched), overwrite)
    for suffix in watched:
        Path(f"{prefix}{suffix}").unlink(missing_ok=True)  # a monitor adds to what is there
    atoms = _atoms(model, structure, device, dtype or "float32")
    watch = None
    if monitor:
        watch = UncertaintyMonitor(
            atoms,
            threshold="auto" if threshold is None else threshold,
            action="stop" if stop else "write",
            file=f"{prefix}-flagged.extxyz",
            log=f"{prefix}-uncertainty.csv",
        )
        print(f"frames with a forces_deviation above {watch.threshold:.4f} eV/Å are flagged")
    kind = f"Langevin at {temperature:g} K" if thermostat else f"NVE from {temperature:g} K"
    print(f"{model}: {atoms.get_chemical_formula()}, {steps} steps of {timestep:g} fs, {kind}")
    print("  time (ps)   potential (eV)   kinetic (eV)       total (eV)    T (K)   drift (meV/atom)   deviation (eV/Å)")
    every = max(interval, steps // 20 // interval * interval)
    with Progress(steps, "md") as progress:

        def report(step: int, row: MDRow | None) -> None:
            if step:
                progress.update()
            if row is not None and (step % every == 0 or step == steps):
                deviation = row.max_forces_deviation_eV_per_A
                progress.print(
                    f"  {row.time_ps:9.4f} {row.potential_eV:16.4f} {row.kinetic_eV:14.4f} {row.total_eV:16.4f} "
                    f"{row.temperature_K:8.1f} {row.drift_meV_per_atom:18.4f} "
                    f"{'–' if deviation != deviation else f'{deviation:.4f}':>18s}"
                )

        try:
            run_md(
                atoms,
                prefix,
                steps=steps,
                timestep_fs=timestep,
                temperature=temperature,
                thermostat=thermostat,
                friction_per_ps=friction,
                seed=seed,
                interval=interval,
                monitor=watch,
                report=report,
            )
        except UncertaintyExceeded as stopped:
            progress.print(f"stopped: {stopped}")
    if watch is not None:
        print(f"{len(watch.flags)} flagged; every step's deviation is in {prefix}-uncertainty.csv")
    print(f"wrote {prefix}.traj, {prefix}.csv, {prefix}.png")


@cli.command()
@click.argument("model")
@click.argument("structure", required=False, type=click.Path(path_type=Path))
@click.option("--fmax", default=0.01, show_default=True, type=click.FloatRange(0, min_open=True), help="eV/Å.")
@click.option("--steps", default=1000, show_default=True, type=click.IntRange(1))
@_calculator_options
@_output_options
def relax(
    model: str,
    structure: Path | None,
    fmax: float,
    steps: int,
    device: str | None,
    dtype: str | None,
    output: Path | None,
    overwrite: bool,
) -> None:
    """Optimize the geometry of STRUCTURE with MODEL (BFGS; default: the model's own molecule, in float64)."""
    from schnet_ase.simulate import RelaxRow, run_relax

    prefix = _free(output or Path(f"{_stem(model)}-relax"), (".xyz", ".traj", ".csv", ".png"), overwrite)
    atoms = _atoms(model, structure, device, dtype or "float64")
    print(f"{model}: {atoms.get_chemical_formula()}, BFGS to {fmax:g} eV/Å")
    print("  step       energy (eV)   largest force (eV/Å)")

    def report(row: RelaxRow) -> None:
        print(f"  {row.step:4d} {row.energy_eV:17.6f} {row.max_force_eV_per_A:22.5f}", flush=True)

    run_relax(atoms, prefix, fmax=fmax, steps=steps, report=report)
    print(f"wrote {prefix}.xyz, {prefix}.traj, {prefix}.csv, {prefix}.png")


@cli.command()
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path))
@_label_options
@click.option("--output", type=click.Path(path_type=Path), help="Picture.  [default: MODEL-DATA.png]")
@click.option("--device", default="cpu", show_default=True)
def evaluate(
    model: str,
    data: Path,
    energy_unit: Any,
    energy_key: str | None,
    forces_key: str | None,
    exclude: Path | None,
    output: Path | None,
    device: str,
) -> None:
    """Print the errors of MODEL on the labelled frames of DATA, of an ensemble its uncertainty too, and draw both."""
    from schnet_ase.data import read_dataset
    from schnet_ase.plots import parity, parity_and_uncertainty
    from schnet_ase.registry import find_card, locate_members
    from schnet_ase.reliability import reliability
    from schnet_ase.training.evaluate import evaluate_dataset

    dataset = read_dataset(data, energy_unit=energy_unit, energy_key=energy_key, forces_key=forces_key, exclude=exclude)
    print(f"{data}: {len(dataset.frames)} frames; {dataset.units}")
    members = locate_members(model)
    result = evaluate_dataset([m.model for m in members], dataset, device=device)
    names = [m.path.stem for m in members]
    for m, name in enumerate(names):
        _print_errors(name if len(names) > 1 else model, result.member(m).errors())
    if len(names) > 1:
        _print_errors(f"ensemble mean of {len(names)}", result.mean().errors())
    mean = result.mean()
    picture = output or Path(f"{_stem(model)}-{dataset.source.split('.')[0]}.png")
    title = f"{model} on {dataset.source}"
    labels_and_predictions = (mean.reference_energy, mean.energy, mean.reference_forces, mean.forces)
    if len(names) > 1:
        card = find_card(model)
        measured = reliability(result.ensemble_errors(), None if card is None else card.calibration)
        print("\n".join(measured.lines()))
        parity_and_uncertainty(*labels_and_predictions, measured, title, picture)
    else:
        parity(*labels_and_predictions, title, picture)
    print(f"wrote {picture}")


@cli.command()
@click.argument("entry")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--coverage", default=0.9, show_default=True, type=float, help="Of the half-widths given by default.")
@_label_options
@click.option("--device", default="cpu", show_default=True)
def calibrate(
    entry: str,
    data: Path,
    coverage: float,
    energy_unit: Any,
    energy_key: str | None,
    forces_key: str | None,
    exclude: Path | None,
    device: str,
) -> None:
    """Calibrate the uncertainty of ENTRY on those labelled frames of DATA that no member saw; rewrites its card."""
    from schnet_ase.data import read_dataset
    from schnet_ase.errors import RegistryError
    from schnet_ase.registry import find_card
    from schnet_ase.training import calibrate_entry, unseen_frames

    card = find_card(entry)
    if card is None:
        raise RegistryError(f"{entry}: not a registry entry; expected the name or the folder of one, with a card")
    dataset = read_dataset(data, energy_unit=energy_unit, energy_key=energy_key, forces_key=forces_key, exclude=exclude)
    print(f"{data}: {len(dataset.frames)} frames; {dataset.units}")
    frames = unseen_frames(card, dataset)
    print(f"{card.name}: {len(card.members)} members, which trained or validated on all but {len(frames)} of them")
    card = calibrate_entry(card, dataset, frames, coverage=coverage, device=device)
    _print_calibration(card)
    print(f"wrote {card.path / 'card.json'}")


@cli.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/NAME]")
@click.option("--data-root", type=click.Path(path_type=Path), help="Where relative data paths start.")
@click.option("--device", default="cpu", show_default=True)
def train(config: Path, output: Path | None, data_root: Path | None, device: str) -> None:
    """Train one model from the TOML file CONFIG; the same command resumes an interrupted training.

    Started by torchrun, its processes train the model together.
    """
    from schnet_ase.progress import Progress
    from schnet_ase.training import load_config, train_from_config
    from schnet_ase.training.history import Row, describe
    from schnet_ase.training.processes import torchrun_processes

    with torchrun_processes(device) as processes:
        run = processes.agree(lambda: load_config(config, data_root))
        folder = output or Path("runs") / run.name
        if processes.rank:
            train_from_config(run, folder, device=device, processes=processes)
            return
        with Progress(run.training.steps, run.name) as progress:

            def report(step: int, row: Row | None) -> None:
                progress.update(step - progress.done, "" if row is None else describe(row))

            result = train_from_config(run, folder, device=device, processes=processes, report=report)
    _print_errors(f"validation of the best weights, step {result.best.step}", result.best.errors)
    if result.test is not None:
        _print_errors("test", result.test)
    print(f"wrote {result.path}, {folder}/metrics.csv, {folder}/learning_curve.png")


@cli.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/NAME]")
@click.option("--models", "models_folder", type=click.Path(path_type=Path), help="Where the entry goes.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Where relative data paths start.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--initial", type=click.Path(path_type=Path), help="Run whose folds' weights to start from.")
@click.option("--workers", type=click.IntRange(1), help="Folds trained at once.  [default: one a core]")
@click.option(
    "--executor", default="processes", show_default=True, type=click.Choice(["processes", "ray"]), help="Of the folds."
)
@click.option("--ray-address", help="Ray cluster to train on.  [default: one on this machine]")
def crossval(
    config: Path,
    output: Path | None,
    models_folder: Path | None,
    data_root: Path | None,
    device: str,
    initial: Path | None,
    workers: int | None,
    executor: Any,
    ray_address: str | None,
) -> None:
    """Train an ensemble by cross-validation from CONFIG and register it; the same command resumes."""
    from schnet_ase.errors import TrainingError
    from schnet_ase.progress import Progress
    from schnet_ase.registry import user_models
    from schnet_ase.training import FoldProgress, load_config
    from schnet_ase.training import crossval as run_crossval
    from schnet_ase.training.history import describe
    from schnet_ase.training.processes import torchrun_processes

    with torchrun_processes("cpu") as processes:
        if processes.size > 1:
            raise TrainingError("crossval trains its folds side by side by itself; start it without torchrun")
    run = load_config(config, data_root)
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
    _print_card_errors(card)
    _print_calibration(card)
    print(f"wrote {card.path}; use it as SchNetEnsembleCalculator({str(card.path)!r})")


@cli.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/NAME]")
@click.option(
    "--data-root", type=click.Path(path_type=Path), help="Where the relative path of the first frames starts."
)
@click.option("--workers", type=click.IntRange(1), help="Members trained at once.  [default: one a core]")
def learn(config: Path, output: Path | None, data_root: Path | None, workers: int | None) -> None:
    """Learn on the fly from CONFIG: dynamics, flags, labels, retraining; the same command resumes."""
    from schnet_ase.learn import learn as run_learn
    from schnet_ase.learn import load_learn_config
    from schnet_ase.learn.audit import describe
    from schnet_ase.progress import Stages

    run = load_learn_config(config, data_root)
    folder = output or Path("runs") / run.name
    with Stages() as stages:
        result = run_learn(
            run,
            folder,
            workers=workers,
            report=lambda event: stages.print(describe(event)),
            progress=stages.update,
        )
    print(f"over after {result.end.reason}: {result.end.labels} labels, {result.end.generations} generations")
    print(f"wrote {result.labels}, {result.audit}, {folder / 'learning.png'}")
    print(f"use it as SchNetEnsembleCalculator({str(result.ensemble)!r})")


@cli.group(invoke_without_command=True)
@click.pass_context
def data(context: click.Context) -> None:
    """List the data sets that can be fetched by name."""
    if context.invoked_subcommand is not None:
        return
    from schnet_ase.data.download import DATA_SETS

    for name, data_set in DATA_SETS.items():
        print(f"{name:20s} {data_set.description}; licence: {data_set.licence}")


@data.command("get")
@click.argument("name")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
def data_get(name: str, folder: Path) -> None:
    """Fetch the data set NAME and check it; the same command goes on with what is missing."""
    from schnet_ase.data.download import get

    print("\n".join(f"  {file}" for file in get(name, folder)))


def _atoms(model: str, structure: Path | None, device: str | None, dtype: str) -> Atoms:
    """The structure, or the entry's own, with the calculator of the model: an ensemble where there are members."""
    import ase.io

    from schnet_ase.calculator import SchNetCalculator
    from schnet_ase.ensemble import SchNetEnsembleCalculator
    from schnet_ase.registry import find_card, get_card, locate_members

    members = locate_members(model)
    atoms: Atoms
    if structure is not None:
        try:
            atoms = cast("Atoms", ase.io.read(structure, index=-1))
        except Exception as error:  # ase.io's readers raise whatever their parser met
            raise StructureError(f"{structure}: not a structure that ASE can read ({error})") from error
    elif model.endswith(".safetensors"):
        raise StructureError(f"{model} is a file and has no molecule of its own; give a STRUCTURE")
    else:
        card = find_card(model) or get_card(model.partition("/")[0])
        atoms = card.structure.atoms()
    if len(members) > 1:
        atoms.calc = SchNetEnsembleCalculator(model, device=device, dtype=dtype)
    else:
        atoms.calc = SchNetCalculator(members[0].path, device=device, dtype=dtype)
    return atoms


def _stem(model: str) -> str:
    return Path(model).stem if model.endswith(".safetensors") else model.rstrip("/").replace("/", "-")


def _free(prefix: Path, suffixes: tuple[str, ...], overwrite: bool) -> Path:
    for suffix in suffixes:
        file = Path(f"{prefix}{suffix}")
        if file.exists() and not overwrite:
            raise click.UsageError(f"{file} exists; give another --output, or --overwrite")
    return prefix


def _mev(value: float | None) -> str:
    return "–" if value is None else f"{1000.0 * value:.2f}"


def _print_errors(label: str, errors: Errors) -> None:
    print(f"{label} ({errors.n_frames} frames)")
    for name, per, mev, kcal in errors.rows():
        print(f"  {name:22s} {mev:10.3f} meV{per:2s} {kcal:10.4f} kcal/mol{per}")


def _print_card_errors(card: Card) -> None:
    for label, errors in (("calibration", card.metrics.calibration), ("test", card.metrics.test)):
        if errors is not None:
            _print_errors(f"ensemble on {label} frames", errors)


def _print_calibration(card: Card) -> None:
    calibration = card.calibration
    if calibration is None:
        print("no calibration; schnet-ase calibrate makes one")
        return
    print(
        f"calibrated on {calibration.n_frames} frames of {calibration.file}; half-widths for a coverage of "
        f"{calibration.coverage:.0%} at the usual spread s₀:"
    )
    for label, unit, intervals in (("energy", "meV", calibration.energy), ("force", "meV/Å", calibration.forces)):
        if intervals is not None:
            s = intervals.prior_spread
            width = intervals.half_width(s, calibration.coverage)
            print(f"  {label:8s} {1000.0 * width:9.3f} {unit:6s} s₀ = {1000.0 * s:.3f}, α = {intervals.alpha:.3f}")
    print(f"largest forces_deviation of a frame, exceeded by 1 in 1,000: {calibration.threshold():.4f} eV/Å")
