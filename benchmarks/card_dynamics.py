"""Dynamics of a registry entry, written into its card: is it stable, and how long does a step take?

Nosé-Hoover dynamics at 500 K with steps of 0.5 fs for 100 ps with the ensemble and its monitor, from the entry's
relaxed structure; it has collapsed when a bond is more than 0.5 Å off its length there, a hydrogen bond's proton being
free to change sides. Then Velocity Verlet with each member for the time per step, all members and a network of 3 × 128
taking turns, one thread. The run is kept when it is done, and not made again.

    python benchmarks/card_dynamics.py models/rmd17-ethanol

With --molecule the run starts from the structure of another entry, of a molecule that this one knows too. It is added
to the card, to the one from the entry's own structure, and the times are left as they are.

    python benchmarks/card_dynamics.py models/rmd17-all --molecule rmd17-aspirin
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import click
from _entries import calibrated
from _md_time import member_times
from _molecule import find_bonds, with_shared_protons
from _report import exit_on_error, processor
from _runs import TIMESTEP_FS, Job, Run, read_run, run_jobs

from schnet_ase.errors import SchNetError
from schnet_ase.output.progress import Progress
from schnet_ase.registry.card import Card, Dynamics, OtherRun, read_card, write_card
from schnet_ase.registry.lookup import find_card, get_card


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("entry")
@click.option("--temperature", default=500.0, show_default=True, type=click.FloatRange(0.0, min_open=True), help="K.")
@click.option("--picoseconds", default=100.0, show_default=True, type=click.FloatRange(0.001))
@click.option("--molecule", help="Entry with the structure to start from.  [default: ENTRY]")
@click.option("--runs", type=click.Path(path_type=Path), help="Where the run is kept.  [default: runs/dynamics-ENTRY]")
@exit_on_error
def main(entry: str, temperature: float, picoseconds: float, molecule: str | None, runs: Path | None) -> None:
    card, calibration = calibrated(entry)
    other = card if molecule is None else find_card(molecule) or get_card(molecule)
    folder = runs or Path("runs") / f"dynamics-{card.name}" / (other.name if molecule else "")
    before = card.dynamics
    if before is not None and (before.temperature, before.picoseconds) != (temperature, picoseconds):
        before = None
    if molecule is not None and before is None:
        raise SchNetError(f"{card.name}: no run of {picoseconds:g} ps at {temperature:g} K; first without --molecule")
    threshold = calibration.threshold()
    run = run_once(card, other, threshold, temperature, picoseconds, folder)
    flagged = None if not run.flag_steps else run.flag_steps[0] * TIMESTEP_FS / 1000.0
    if molecule is not None and before is not None:
        new = OtherRun(other.name, run.picoseconds, flagged)
        kept = (o for o in before.others if o.structure != new.structure)
        dynamics = replace(before, others=tuple(sorted((*kept, new), key=lambda o: o.structure)))
    else:
        times = member_times(card)
        dynamics = Dynamics(
            temperature=temperature,
            picoseconds=picoseconds,
            stable=run.picoseconds,
            threshold=threshold,
            flagged=flagged,
            milliseconds=times.members,
            yardstick=times.yardstick,
            processor=processor(),
            command=shlex.join(["python", *sys.argv]),
            others=() if before is None else before.others,
        )
    print("\n".join(dynamics.lines()))
    write_card(replace(read_card(card.path), dynamics=dynamics), card.path)
    print(f"wrote {card.path / 'card.json'}")


def run_once(card: Card, other: Card, threshold: float, temperature: float, picoseconds: float, folder: Path) -> Run:
    """The run of `card` from the structure of `other`."""
    atoms = other.structure.atoms()
    if atoms.pbc.any():
        raise SchNetError(f"{other.name}: periodic; expected a molecule, whose bonds tell whether it is whole")
    bonds = with_shared_protons(find_bonds(atoms.numbers, atoms.positions[None]), atoms)
    parts = (tuple(values.tolist()) for values in (bonds.first, bonds.second, bonds.mean))
    members = tuple(member.sha256 for member in card.members)
    entry, structure = (str(c.path.resolve()) for c in (card, other))
    job = Job(entry, structure, members, threshold, *parts, temperature, None, picoseconds, 0)
    if (kept := read_run(job, folder)) is not None:
        return kept
    with Progress(round(picoseconds), "dynamics", "picosecond") as progress:
        ((_, run),) = run_jobs([job], folder, 1, progress)
    return run


if __name__ == "__main__":
    main()
