"""The command for dynamics."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from schnet_ase.cli.common import FiniteRange, calculator_options, files_prefix, free, output_options, stem
from schnet_ase.cli.doubts import doubts_of_run, say_what_is_strange, with_advice
from schnet_ase.cli.lines import DynamicsLines, flagged, print_degrees_of_freedom
from schnet_ase.cli.structures import read_one, smiles_option
from schnet_ase.errors import RunawayError

if TYPE_CHECKING:
    from ase import Atoms

    from schnet_ase.monitor.monitor import UncertaintyMonitor

GENTLER_MD = "take a lower temperature, shorter steps, or a start that schnet-ase relax has made"


@click.command()
@click.argument("model")
@click.argument("structure", required=False, type=click.Path(path_type=Path))
@click.option("--steps", default=2000, show_default=True, type=click.IntRange(1))
@click.option("--timestep", default=0.5, show_default=True, type=FiniteRange(0, min_open=True), help="fs.")
@click.option("--temperature", default=300.0, show_default=True, type=FiniteRange(0), help="K.")
@click.option("--thermostat", is_flag=True, help="Langevin dynamics (NVT); default: NVE.")
@click.option("--friction", type=FiniteRange(0), help="Friction of the thermostat, 1/ps.  [default: 10]")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of velocities and thermostat.")
@click.option("--interval", default=10, show_default=True, type=click.IntRange(1), help="Steps between rows.")
@click.option(
    "--monitor",
    is_flag=True,
    help="Flag uncertain frames, and save them. If MODEL has a student, the student moves the atoms; the members check "
    "the run every --interval steps, and go back through the frames since to find the first uncertain one. Otherwise "
    "the mean of the members moves the atoms, and their spread is checked at every step.",
)
@click.option(
    "--threshold",
    callback=lambda context, option, text: None if text is None else _levels(text),
    metavar="LO[,HI]",
    help="Threshold of the monitor, eV/Å; frames above HI are not saved.  [default: from the ensemble's calibration]",
)
@click.option("--stop", is_flag=True, help="With --monitor: end the run at the first flagged frame.")
@click.option("--each", is_flag=True, help="Run every frame of STRUCTURE by itself, over the cores.")
@click.option("--workers", type=click.IntRange(1), help="With --each: processes.  [default: one per core]")
@smiles_option
@calculator_options
@output_options
def md(
    model: str,
    structure: Path | None,
    smiles: str | None,
    steps: int,
    timestep: float,
    temperature: float,
    thermostat: bool,
    friction: float | None,
    seed: int,
    interval: int,
    monitor: bool,
    threshold: float | tuple[float, float] | None,
    stop: bool,
    each: bool,
    workers: int | None,
    device: str | None,
    dtype: str | None,
    output: str | None,
    overwrite: bool,
) -> None:
    """Run molecular dynamics with MODEL on STRUCTURE (any file ASE reads; default: the model's own molecule).

    Atoms at rest get velocities. A run at constant energy (NVE, by velocity Verlet) is then equilibrated for 1 ps, so
    that its mean temperature is the requested one. If the file has several frames, the last one is used, with its
    velocities if it has any; this continues an earlier run, with the time counted from 0 again. To continue a run with
    --thermostat, give another --seed. A run whose atoms fly apart is stopped with exit status 3.

    With --each, every frame is run by itself, each with a seed of its own. A table (.csv) and the last frames (.xyz)
    join the files of the runs; the table names those that failed. The same command resumes an interrupted one.
    """
    from schnet_ase.errors import MonitorError, UncertaintyExceeded
    from schnet_ase.geometry.motion import Thermometer, equilibration_steps
    from schnet_ase.output.progress import Progress
    from schnet_ase.simulation.dynamics import MDRow, run_md
    from schnet_ase.simulation.each import KEPT
    from schnet_ase.simulation.many_md import Settings

    if not monitor and (stop or threshold is not None):
        raise MonitorError("--threshold and --stop belong to a monitor; add --monitor")
    if not thermostat and friction is not None:
        raise click.UsageError("--friction belongs to a thermostat; add --thermostat")
    if each:
        if monitor:
            raise click.UsageError("--monitor watches one run; leave it out: the table of --each has the deviations")
        from schnet_ase.cli.many_dynamics import run_each

        prefix = files_prefix(output, f"{stem(model)}-md", (".xyz", ".csv", KEPT), True)
        free(prefix, (".xyz", ".csv"), overwrite)
        settings = Settings(
            model,
            str(prefix),
            steps,
            timestep,
            temperature,
            thermostat,
            10.0 if friction is None else friction,
            seed,
            interval,
            device,
            dtype or "float32",
        )
        run_each(settings, structure, smiles, workers)
        return
    if workers is not None:
        raise click.UsageError("--workers belongs to many structures; add --each")
    watched = ("-flagged.extxyz", "-uncertainty.csv") if monitor else ()
    prefix = files_prefix(output, f"{stem(model)}-md", (".traj", ".csv", ".png", *watched), overwrite)
    atoms = read_one(model, structure, device, dtype or "float32", smiles)
    watch = _watch(model, atoms, interval, threshold, stop, prefix, overwrite) if monitor else None
    fresh = not atoms.get_momenta().any()
    equilibration = equilibration_steps(timestep) if fresh and not thermostat and temperature else 0
    kind = f"Langevin at {temperature:g} K" if thermostat else "NVE"
    velocities = f"velocities drawn at {temperature:g} K" if fresh else f"velocities of {structure}"
    if equilibration:
        velocities = f"after {equilibration} with a thermostat, for a mean temperature near {temperature:g} K"
    print(f"{model}: {atoms.get_chemical_formula()}, {steps} steps of {timestep:g} fs, {kind}, {velocities}")
    print_degrees_of_freedom(atoms, Thermometer(not thermostat))
    trained_on = say_what_is_strange(model, atoms, moving=True)
    lines = DynamicsLines(thermostat, steps, interval)
    print(lines.header())
    with Progress(steps + equilibration, "md") as progress:

        def report(step: int, row: MDRow | None) -> None:
            if step:
                progress.update()
            if row is not None and (line := lines.line(step, row)):
                progress.print(line)

        rows: list[MDRow] = []
        try:
            rows = run_md(
                atoms,
                prefix,
                steps=steps,
                timestep_fs=timestep,
                temperature=temperature,
                thermostat=thermostat,
                friction_per_ps=10.0 if friction is None else friction,
                seed=seed,
                interval=interval,
                monitor=watch,
                report=report,
            )
        except UncertaintyExceeded as stopped:
            progress.print(f"stopped: {stopped}")
        except RunawayError as error:
            raise with_advice(error, trained_on, atoms, GENTLER_MD) from error
    if rows:
        print(lines.mean_temperature())
    if watch is not None:
        print(f"{flagged(watch, prefix)}; the deviations are in {prefix}-uncertainty.csv")
    print(f"wrote {prefix}.traj, {prefix}.csv, {prefix}.png")
    for doubt in doubts_of_run(atoms, [row.max_forces_deviation_eV_per_A for row in rows], watch):
        print(f"do not trust this run: {doubt}", file=sys.stderr)


def _watch(
    model: str,
    atoms: Atoms,
    interval: int,
    threshold: float | tuple[float, float] | None,
    stop: bool,
    prefix: Path,
    overwrite: bool,
) -> UncertaintyMonitor:
    """Return the monitor of a run; if the entry has a student, give `atoms` its calculator."""
    from schnet_ase.calculators.ensemble import SchNetEnsembleCalculator
    from schnet_ase.calculators.single import SchNetCalculator
    from schnet_ase.errors import MonitorError
    from schnet_ase.monitor.monitor import UncertaintyMonitor
    from schnet_ase.registry.loading import locate, locate_members

    ensemble = atoms.calc
    if not isinstance(ensemble, SchNetEnsembleCalculator):
        raise MonitorError(
            f"{model} is a single network, whose uncertainty is not known; --monitor needs an ensemble, such as "
            "schnet-ase crossval makes"
        )
    members = [member.path for member in locate_members(model)]
    student = locate(model).path not in members
    if student:
        device, dtype = (ensemble.parameters[name] for name in ("device", "dtype"))
        atoms.calc = SchNetCalculator(model, device=device, dtype=dtype)
        print(f"the student of {model} moves the atoms, and its {len(members)} members check every {interval} steps")
    watch = UncertaintyMonitor(
        atoms,
        ensemble=ensemble if student else None,
        interval=interval if student else 1,
        threshold="auto" if threshold is None else threshold,
        action="stop" if stop else "write",
        file=f"{prefix}-flagged.extxyz",
        log=f"{prefix}-uncertainty.csv",
        append=not overwrite,
    )
    failed = f", but not saved above {watch.failed_above:.4f}" if math.isfinite(watch.failed_above) else ""
    print(f"frames with a forces_deviation above {watch.threshold:.4f} eV/Å are flagged{failed}")
    return watch


def _levels(text: str) -> float | tuple[float, float]:
    try:
        levels = [float(part) for part in text.split(",")]
    except ValueError:
        levels = []
    match levels:
        case [lo] if 0.0 < lo < math.inf:
            return lo
        case [lo, hi] if 0.0 < lo < hi:
            return lo, hi
    raise click.BadParameter(f"{text}; expected LO or LO,HI, such as 0.1 or 0.1,0.5, with 0 < LO < HI in eV/Å")
