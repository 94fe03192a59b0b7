"""Dynamics of each structure of a file, for the command `md`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from schnet_ase.cli.doubts import doubts_of_run, say_what_is_strange_of_many
from schnet_ase.cli.structures import read_all
from schnet_ase.errors import SchNetError

if TYPE_CHECKING:
    from schnet_ase.simulation.many_md import Settings


def run_each(settings: Settings, structure: Path | None, smiles: str | None, workers: int | None) -> None:
    from schnet_ase.output.progress import Progress
    from schnet_ase.simulation.each import label
    from schnet_ase.simulation.many_md import Outcome, last_frame, md_many

    frames, calculator = read_all(settings.model, structure, settings.device, settings.dtype, smiles)
    kind = f"Langevin at {settings.temperature:g} K" if settings.thermostat else "NVE"
    steps = f"{settings.steps} steps of {settings.timestep_fs:g} fs each"
    print(f"{settings.model}: {len(frames)} structures, {steps}, {kind}")
    say_what_is_strange_of_many(settings.model, frames, calculator, moving=True)
    with Progress(len(frames), "md", "structure") as progress:

        def report(outcome: Outcome) -> None:
            progress.update()
            if outcome.status != "finished":
                progress.print(f"{label(outcome)} {outcome.formula} {outcome.status}: {outcome.remark}")

        outcomes = md_many(frames, settings, workers=workers, report=report)
    finished = [outcome for outcome in outcomes if outcome.status == "finished"]
    print(f"{len(finished)} of {len(outcomes)} runs finished")
    print(
        f"wrote {settings.output}.csv, {settings.output}.xyz, and {settings.output}-NUMBER.traj, .csv, .png of each run"
    )
    for outcome in finished:
        atoms = last_frame(outcome, settings)
        atoms.calc = calculator
        far = outcome.unlike_training
        unlike = [f"its start is unlike the training frames, {far:.1f} times the usual limit"] if far > 1.0 else []
        for doubt in (*unlike, *doubts_of_run(atoms, [outcome.max_forces_deviation_eV_per_A], None)):
            print(f"do not trust the run of {label(outcome)}: {doubt}", file=sys.stderr)
    if not finished:
        raise SchNetError(f"none of the {len(outcomes)} runs finished; {settings.output}.csv says why each failed")
