"""Runs of LAMMPS in a process of its own, and what it prints of them, turned back to ASE's axes and units."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.lammps import Prism
from ase.io import read, write

from schnet_ase import SchNet
from schnet_ase.geometry.arrays import Floats

PROGRAMS = Path(sys.executable).parent
CONSTANTS = 3e-7
"""Relative difference of the constants of ASE and LAMMPS: eV/Å³ in bar, and eV in kcal/mol."""


class Printed(NamedTuple):
    """What a run ended with, by LAMMPS's own words of output."""

    energy: float
    forces: Floats
    energies: Floats
    stress: Floats
    """(3, 3) eV/Å³, minus LAMMPS's pressure."""
    peratom_virial: Floats
    """(3, 3) eV, the sum over atoms of what ``compute stress/atom`` gives."""
    deviation: Floats
    member_energies: Floats
    log: str


def trained(model: SchNet) -> SchNet:
    """A model that says which elements it knows."""
    model.elements = (1, 6, 8)
    return model


def crowd(pbc, *, n: int = 24, seed: int = 0) -> Atoms:
    """Atoms of three elements without symmetry in a sheared cell, of which one length is less than the cutoff."""
    rng = np.random.default_rng(seed)
    cell = np.array([[3.6, 0.0, 0.0], [0.7, 7.0, 0.0], [-0.9, 1.1, 9.0]])
    corners = np.array([[i, j, k] for i in range(2) for j in range(3) for k in range(4)][:n]) / [2, 3, 4]
    atoms = Atoms(rng.choice([1, 6, 8], n), scaled_positions=corners, cell=cell, pbc=pbc)
    atoms.rattle(0.15, rng=rng)
    free = [axis for axis in range(3) if not pbc[axis]]
    if free:
        atoms.center(vacuum=5.0, axis=free)
    atoms.wrap()
    return atoms


def pair_lines(plugin: Path, file: Path, atoms: Atoms) -> list[str]:
    species = sorted(set(atoms.get_chemical_symbols()))
    return [f"plugin load {plugin}", "pair_style schnet", f"pair_coeff * * {file} {' '.join(species)}"]


def lammps_input(
    folder: Path,
    atoms: Atoms,
    pair: Sequence[str],
    *,
    before: Sequence[str] = (),
    after: Sequence[str] = ("run 0",),
    members: int = 1,
    units: str = "metal",
    boundary: str | None = None,
) -> str:
    """An input of LAMMPS: the `pair` lines, then `after`; `before` are commands that come before the box."""
    species = sorted(set(atoms.get_chemical_symbols()))
    write(
        folder / "data",
        atoms,
        format="lammps-data",
        specorder=species,
        masses=True,
        units=units,
        atom_style="atomic",
        reduce_cell=False,
    )
    deviation = ["fix d all pair 1 schnet deviation 0"] if members > 1 else []
    member_energies = " ".join(f"v_e{m + 1}" for m in range(members))
    return "\n".join(
        [
            f"units {units}",
            f"boundary {boundary or ' '.join('p' if p else 'f' for p in atoms.pbc)}",
            "atom_style atomic",
            "newton on",
            *before,
            "box tilt large",
            f"read_data {folder / 'data'}",
            *pair,
            "neighbor 1.0 bin",
            *deviation,
            "compute e all pe/atom",
            "compute s all stress/atom NULL virial",
            "compute p all pressure NULL virial",
            "compute sums all reduce sum c_s[1] c_s[2] c_s[3] c_s[4] c_s[5] c_s[6]",
            "compute m all pair schnet",
            *(f"variable e{m + 1} equal c_m[{m + 1}]" for m in range(members)),
            f"thermo_style custom step pe c_p[*] c_sums[*] {member_energies}",
            "thermo_modify format float %.16g",
            f"dump d all custom 1 {folder / 'dump'} id fx fy fz c_e {'f_d' if members > 1 else 'c_e'}",
            "dump_modify d sort id format float %.17g",
            *after,
            "",
        ]
    )


def run_lammps(folder: Path, text: str, *, ranks: int = 1, threads: int = 1) -> subprocess.CompletedProcess[str]:
    """Run an input; what it prints is in the result."""
    with start_lammps(folder, text, ranks=ranks, threads=threads) as process:
        stdout, stderr = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def start_lammps(folder: Path, text: str, *, ranks: int = 1, threads: int = 1) -> subprocess.Popen[str]:
    """Start a run of an input."""
    (folder / "in").write_text(text)
    command = [PROGRAMS / "mpirun", "-n", str(ranks), PROGRAMS / "lmp", "-in", folder / "in", "-log", folder / "log"]
    # Ranks that wait give way to others: there are more of them than cores.
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MPIR_CVAR_POLLS_BEFORE_YIELD": "1"}
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment,
    )


def printed(folder: Path, atoms: Atoms, *, members: int = 1) -> Printed:
    """The last step of a run that `lammps_input` described, in units metal."""
    from ase.units import bar

    log = (folder / "log").read_text()
    lines = log.splitlines()
    start = max(k for k, line in enumerate(lines) if line.split()[:2] == ["Step", "PotEng"])
    end = next(k for k in range(start, len(lines)) if lines[k].startswith("Loop time"))
    row = np.array(lines[end - 1].split(), dtype=float)
    raw = np.loadtxt((folder / "dump").read_text().split("ITEM: ATOMS")[-1].splitlines()[1:], ndmin=2)
    prism = Prism(atoms.cell.array, pbc=atoms.pbc, reduce_cell=False)
    return Printed(
        energy=row[1],
        forces=prism.vector_to_ase(raw[:, 1:4], wrap=False),
        energies=raw[:, 4],
        stress=prism.tensor2_to_ase(-bar * _matrix(row[2:8])),
        peratom_virial=prism.tensor2_to_ase(bar * _matrix(row[8:14])),
        deviation=raw[:, 5],
        member_energies=row[14 : 14 + members],
        log=log,
    )


def _matrix(values: Floats) -> Floats:
    xx, yy, zz, xy, xz, yz = values
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def end(folder: Path, atoms: Atoms) -> Atoms:
    """The atoms that ``write_data end nocoeff`` wrote, in LAMMPS's axes and in the order of `atoms`."""
    found = read(folder / "end", format="lammps-data", units="metal", atom_style="atomic", sort_by_id=True)
    found.numbers[:] = atoms.numbers
    found.pbc = atoms.pbc
    return found


def assert_as_in_ase(folder: Path, atoms: Atoms, calculator: Calculator) -> Printed:
    """Compare the last step of a run with what ASE says of its atoms, which are in LAMMPS's axes."""
    found = printed(folder, atoms)
    atoms.calc = calculator
    assert found.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(found.forces, atoms.get_forces(), rtol=0, atol=1e-8)
    if atoms.pbc.all():
        stress = atoms.get_stress(voigt=False)
        of_atoms = found.peratom_virial / atoms.cell.volume
        for virial in (found.stress, of_atoms):
            np.testing.assert_allclose(virial, stress, rtol=0, atol=CONSTANTS * max(abs(stress).max(), 0.01))
    return found
