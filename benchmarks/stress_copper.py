"""Benefit of training on stress for a run at constant pressure, for copper labelled by ASE's EMT.

Frames of 32 atoms are taken from EMT's dynamics at 300 to 900 K in cells that are strained at random by up to 4 % in
all directions, and labelled with energy, forces and stress. Two networks are trained on them, without and with stress,
and each then drives a run at constant temperature and pressure. The pressure of the same frames is then computed with
EMT, and a run with EMT gives the reference volume.

    python benchmarks/stress_copper.py --output copper
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from _report import conditions, exit_on_error, table
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import IsotropicMTKNPT
from ase.md.velocitydistribution import Stationary, thermalize_momenta

from schnet_ase import SchNetCalculator, SchNetConfig
from schnet_ase.data import Dataset, Frame, split_training
from schnet_ase.geometry.system import geometry
from schnet_ase.training import TrainingConfig, train
from schnet_ase.training.config import DataConfig, RunConfig
from schnet_ase.uncertainty.metrics import GPA, MEV

NETWORK = SchNetConfig(
    n_features=32,
    n_interactions=2,
    n_rbf=20,
    cutoff=5.0,
    gamma=None,
    envelope="polynomial",
    activation="silu",
    filter_activation_last=False,
)
STRAIN = 0.04
TEMPERATURES = (300.0, 500.0, 700.0, 900.0)
FEMTOSECONDS = 4.0
BETWEEN = 12
"""Number of steps between two frames to label."""
WARM_UP = 50
"""Number of steps before the first frame to label."""
EVERY = 5
"""Number of steps between two evaluated frames of a run at constant pressure."""


class Run(NamedTuple):
    """Means over a run at constant pressure without its first quarter."""

    pressure: float
    """Pressure of the calculator that drives the run, GPa."""
    reference: float
    """EMT's pressure of the same frames, GPa."""
    scatter: float
    """Standard deviation of the difference of the two pressures, GPa."""
    volume: float
    """Volume per atom, Å³."""


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--frames", default=240, show_default=True, type=click.IntRange(40))
@click.option("--steps", default=1500, show_default=True, type=click.IntRange(1), help="Training steps.")
@click.option(
    "--md-steps", default=1500, show_default=True, type=click.IntRange(100), help="Steps at constant pressure."
)
@click.option("--stress-weight", default=1.0, show_default=True, type=click.FloatRange(0.0, min_open=True))
@click.option("--temperature", default=600.0, show_default=True, help="Temperature of the runs, K.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for the network trained on stress.")
@exit_on_error
def main(frames: int, steps: int, md_steps: int, stress_weight: float, temperature: float, output: Path | None) -> None:
    torch.set_num_threads(1)
    dataset = Dataset(labelled_frames(frames), "copper", "0" * 64, "eV, Å")
    frames = len(dataset.frames)
    reference = constant_pressure(EMT(), temperature, md_steps)
    rows = []
    for weight in (0.0, stress_weight):
        with tempfile.TemporaryDirectory() as temporary:
            folder = output if output is not None and weight else Path(temporary)
            config = RunConfig(
                name="copper",
                data=DataConfig(file="copper"),
                model=NETWORK,
                training=TrainingConfig(
                    steps=steps,
                    batch_size=4,
                    validate_every=max(1, steps // 5),
                    stress_weight=weight,
                    compile=False,
                ),
            )
            result = train(config, dataset, split_training(frames, frames // 6, 0), folder)
        errors = result.best.errors
        assert errors.force_mae is not None
        assert errors.stress_mae is not None
        run = constant_pressure(SchNetCalculator(result.model, engine="autograd"), temperature, md_steps)
        rows.append(
            (
                f"{weight:g}",
                f"{MEV * errors.force_mae:.1f}",
                f"{GPA * errors.stress_mae:.3f}",
                f"{run.pressure:+.3f}",
                f"{run.reference:+.3f}",
                f"{run.pressure - run.reference:+.3f} ± {run.scatter:.3f}",
                f"{run.volume:.3f}",
            )
        )
        print(f"trained with stress_weight = {weight:g} and run")
    header = (
        "stress_weight",
        "force MAE (meV/Å)",
        "stress MAE (GPa)",
        "pressure (GPa)",
        "EMT's, same frames (GPa)",
        "difference (GPa)",
        "volume (Å³ an atom)",
    )
    picoseconds = md_steps * FEMTOSECONDS / 1000.0
    print(
        f"\n{frames} frames of 32 atoms, a sixth to validate on; {steps:,} steps of training; {picoseconds:g} ps at "
        f"{temperature:g} K and no pressure, where EMT itself has {reference.pressure:+.3f} GPa on average and "
        f"{reference.volume:.3f} Å³ an atom: {conditions()}\n"
    )
    print(table(header, rows))


def labelled_frames(n_frames: int) -> list[Frame]:
    """Return frames of dynamics at each temperature, each with its own cell."""
    rng = np.random.default_rng(0)
    atoms = copper()
    atoms.calc = EMT()
    made = []
    for temperature in TEMPERATURES:
        thermalize_momenta(atoms, temperature, rng=rng)
        with Langevin(
            atoms,
            FEMTOSECONDS * units.fs,
            temperature_K=temperature,
            friction=0.02 / units.fs,
            fixcm=False,
            rng=rng,
        ) as dynamics:
            dynamics.run(WARM_UP)
            for _ in range(n_frames // len(TEMPERATURES)):
                dynamics.run(BETWEEN)
                made.append(labelled(strained(atoms, rng)))
    return made


def copper() -> Atoms:
    """Return a crystal of 32 atoms."""
    atoms: Atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    return atoms


def strained(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Return a copy in a cell whose lengths and angles are changed at random."""
    copy: Atoms = atoms.copy()
    copy.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-STRAIN, STRAIN, (3, 3))), scale_atoms=True)
    return copy


def labelled(atoms: Atoms) -> Frame:
    """Return a frame labelled by EMT."""
    atoms.calc = EMT()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    return Frame(geometry(atoms), energy, forces, atoms.get_stress())


def constant_pressure(calculator: Calculator, temperature: float, steps: int) -> Run:
    """Run dynamics at zero pressure and compare with EMT's pressure, both including the kinetic part."""
    rng = np.random.default_rng(1)
    atoms = copper()
    atoms.calc = calculator
    thermalize_momenta(atoms, temperature, rng=rng)
    Stationary(atoms)
    step = FEMTOSECONDS * units.fs
    found = []

    def look() -> None:
        other = atoms.copy()
        other.calc = EMT()
        found.append((pressure(atoms), pressure(other), atoms.get_volume() / len(atoms)))

    dynamics = IsotropicMTKNPT(
        atoms, step, temperature_K=temperature, pressure_au=0.0, tdamp=25 * step, pdamp=100 * step
    )
    dynamics.attach(look, interval=EVERY)
    dynamics.run(steps)
    kept = np.array(found[len(found) // 4 :])
    own, reference, volume = kept.mean(axis=0)
    return Run(own, reference, float((kept[:, 0] - kept[:, 1]).std()), volume)


def pressure(atoms: Atoms) -> float:
    """Return the pressure in GPa."""
    return float(-GPA * atoms.get_stress(include_ideal_gas=True)[:3].mean())


if __name__ == "__main__":
    main()
