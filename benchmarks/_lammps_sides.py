"""Sides of `lammps_speed.py`: what LAMMPS reads for each pair style, and how a run is timed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.io import write

from schnet_ase.errors import ExportError

SPECIES = ("H", "O")
STEP_FS = 0.5
DEEPMD = {
    "model": {
        "type_map": list(SPECIES),
        "descriptor": {
            "type": "se_e2_a",
            "sel": [92, 46],
            "rcut_smth": 0.5,
            "rcut": 6.0,
            "neuron": [25, 50, 100],
            "resnet_dt": False,
            "axis_neuron": 16,
            "seed": 1,
        },
        "fitting_net": {"neuron": [240, 240, 240], "resnet_dt": True, "seed": 1},
    },
    "learning_rate": {"type": "exp", "decay_steps": 5000, "start_lr": 1e-10, "stop_lr": 1e-11},
    "loss": {"type": "ener"},
    "training": {
        "training_data": {"systems": ["data"], "batch_size": 1},
        "numb_steps": 1,
        "save_freq": 1,
        "disp_freq": 1,
    },
}
"""deepmd-kit's examples/water/se_e2_a, trained for one step: the speed does not depend on the weights."""


class Side(NamedTuple):
    """A potential in LAMMPS."""

    name: str
    programs: Path
    """Folder with `lmp` and `mpirun`."""
    box: Sequence[str]
    """Lines before the box is copied, in units metal or real."""
    pair: Sequence[str]
    step: float
    """Time step in the units of `box`."""


class Time(NamedTuple):
    """Of a run, per atom and step, in µs, and the peak memory of one rank in MB."""

    wall: float
    """Of the fastest block of steps: other programs on the machine only make it longer."""
    processor: float
    """Of all steps, of one rank."""
    megabytes: float


def programs_of(python: Path) -> Path:
    """The folder with LAMMPS's programs of an environment."""
    folder = python.parent
    if not (folder / "lmp").exists():
        raise ExportError(f"{folder}/lmp: there is none; expected the python of an environment with the package lammps")
    return folder


def schnet(name: str, atoms: Atoms, folder: Path, plugin: Path, model: Path, *, members: int) -> Side:
    """Our pair style; several members with their deviation at each step."""
    deviation = ["fix d all pair 1 schnet deviation 0"] if members > 1 else []
    pair = [f"plugin load {plugin}", "pair_style schnet", f"pair_coeff * * {model} {' '.join(SPECIES)}", *deviation]
    return Side(name, programs_of(Path(sys.executable)), _box(atoms, folder), pair, STEP_FS / 1000)


def deepmd(name: str, atoms: Atoms, folder: Path, python: Path, model: Path) -> Side:
    """deepmd-kit's pair style, in its own environment."""
    pair = [f"pair_style deepmd {model}", "pair_coeff * *"]
    return Side(name, programs_of(python), _box(atoms, folder), pair, STEP_FS / 1000)


def make_deepmd(atoms: Atoms, folder: Path, python: Path) -> tuple[Path, Path]:
    """deepmd-kit's example network without training: frozen, and frozen and compressed."""
    data = folder / "data"
    (data / "set.000").mkdir(parents=True)
    (data / "type.raw").write_text("\n".join(str(SPECIES.index(s)) for s in atoms.get_chemical_symbols()))
    (data / "type_map.raw").write_text("\n".join(SPECIES))
    for name, array in {
        "coord": atoms.positions.reshape(1, -1),
        "box": atoms.cell.array.reshape(1, 9),
        "energy": np.array([-1.0]),
        "force": np.zeros((1, 3 * len(atoms))),
    }.items():
        np.save(data / "set.000" / f"{name}.npy", array)
    (folder / "input.json").write_text(json.dumps(DEEPMD))
    # Without CUDA's libraries `dp` ends with an error after it has written its file.
    frozen, compressed = folder / "frozen.pb", folder / "compressed.pb"
    for arguments, file in (
        ("train input.json", folder / "checkpoint"),
        (f"freeze -o {frozen}", frozen),
        (f"compress -i {frozen} -o {compressed}", compressed),
    ):
        text, _ = _run([python.parent / "dp", *arguments.split()], folder, check=False)
        if not file.exists():
            raise ExportError(f"dp {arguments} wrote no {file.name}: {text.splitlines()[-1:]}")
    return frozen, compressed


def classical(atoms: Atoms, folder: Path) -> Side:
    """SPC/Fw, flexible three-point water, with the long range of its charges."""
    oxygens = np.flatnonzero(atoms.numbers == 8)
    hydrogens = np.flatnonzero(atoms.numbers == 1)
    nearest = np.array([oxygens[np.argmin(atoms.get_distances(h, oxygens, mic=True))] for h in hydrogens])
    molecule = np.zeros(len(atoms), int)
    molecule[oxygens], molecule[hydrogens] = oxygens + 1, nearest + 1
    lines = ["water", "", f"{len(atoms)} atoms", f"{len(hydrogens)} bonds", f"{len(oxygens)} angles"]
    lines += ["2 atom types", "1 bond types", "1 angle types"]
    lines += [f"0 {length:.10f} {a}lo {a}hi" for a, length in zip("xyz", atoms.cell.lengths(), strict=True)]
    lines += ["", "Masses", "", "1 1.008", "2 15.999", "", "Atoms # full", ""]
    positions = atoms.get_positions(wrap=True)
    # Images that make molecules whole: `replicate` joins atoms across a face of the box by these alone.
    images = np.rint((positions[molecule - 1] - positions) / atoms.cell.lengths()).astype(int)
    for i, symbol in enumerate(atoms.get_chemical_symbols()):
        of_type = "1 0.41" if symbol == "H" else "2 -0.82"
        place = " ".join(f"{x:.10f}" for x in positions[i])
        lines.append(f"{i + 1} {molecule[i]} {of_type} {place} {' '.join(map(str, images[i]))}")
    lines += ["", "Bonds", ""]
    lines += [f"{k + 1} 1 {o + 1} {h + 1}" for k, (h, o) in enumerate(zip(hydrogens, nearest, strict=True))]
    lines += ["", "Angles", ""]
    for k, o in enumerate(oxygens):
        first, second = hydrogens[nearest == o]
        lines.append(f"{k + 1} 1 {first + 1} {o + 1} {second + 1}")
    (folder / "classical.data").write_text("\n".join(lines) + "\n")
    box = ["units real", "atom_style full", "bond_style harmonic", "angle_style harmonic"]
    pair = ["pair_style lj/cut/coul/long 10.0", "pair_coeff * * 0 0", "pair_coeff 2 2 0.1554253 3.165492"]
    pair += ["kspace_style pppm 1e-4", "bond_coeff 1 529.581 1.012", "angle_coeff 1 37.95 113.24"]
    programs = programs_of(Path(sys.executable))
    return Side("lj/cut/coul/long", programs, [*box, f"read_data {folder / 'classical.data'}"], pair, STEP_FS)


def _box(atoms: Atoms, folder: Path) -> list[str]:
    data = folder / "water.data"
    write(data, atoms, format="lammps-data", specorder=SPECIES, masses=True, units="metal", atom_style="atomic")
    return ["units metal", "atom_style atomic", f"read_data {data}"]


def time_side(
    side: Side, copies: tuple[int, int, int], blocks: int, steps: int, *, ranks: int, temperature: float
) -> Time:
    """Run a block of steps to warm up, then `blocks` of `steps`, and read LAMMPS's own times of these."""
    lines = [
        "newton on",
        *side.box,
        f"replicate {' '.join(map(str, copies))}",
        *side.pair,
        "neighbor 1.0 bin",
        "neigh_modify every 1 delay 0 check yes",
        f"timestep {side.step}",
        f"velocity all create {temperature} 1 loop geom",
        "fix move all nve",
        f"thermo {steps}",
        f"run {steps}",
        *[f"run {steps} pre no"] * blocks,
    ]
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "in").write_text("\n".join(lines) + "\n")
        launch = [] if ranks == 1 else [side.programs / "mpirun", "-n", ranks]
        text, megabytes = _run([*launch, side.programs / "lmp", "-in", "in"], Path(name))
    loops = re.findall(r"Loop time of (\S+) on \d+ procs for \d+ steps with (\d+) atoms", text)[1:]
    use = re.findall(r"([\d.]+)% CPU use", text)[1:]
    seconds = np.array([float(loop) for loop, _ in loops])
    shares = np.array([float(share) / 100 for share in use])
    per_atom = 1e6 / steps / int(loops[-1][1])
    return Time(seconds.min() * per_atom, float(seconds @ shares) / blocks * per_atom, megabytes)


def _run(command: Sequence[object], folder: Path, *, check: bool = True) -> tuple[str, float]:
    """The output of a program, and the memory of the largest process that it started, MB."""
    threads = {f"{of}_{kind}_PARALLELISM_THREADS": "1" for of in ("TF", "DP") for kind in ("INTRA_OP", "INTER_OP")}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **threads}
    with open(folder / "output", "w+", encoding="utf-8") as output:
        words = list(map(str, command))
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if check and process.returncode:
        errors = [said for said in text.splitlines() if "ERROR" in said] or text.splitlines()[-1:] or ["no output"]
        raise ExportError(f"{command[0]} failed: {errors[0]}")
    return text, usage.ru_maxrss / 1024
