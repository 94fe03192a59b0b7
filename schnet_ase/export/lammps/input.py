"""A LAMMPS input and data file for atoms and a model: dynamics that starts as it is, and reads as an example."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ase import Atoms
from ase.io import write

from schnet_ase.errors import ExportError
from schnet_ase.output.files import atomic_write

VACUUM = 10.0
"""Å around atoms that are not periodic."""


class Run(NamedTuple):
    """What the input file asks LAMMPS to do."""

    temperature: float
    """K."""
    timestep: float
    """fs."""
    steps: int
    threshold: float | None
    """eV/Å; frames with an atom whose deviation is above it are written to ``PREFIX.flagged.dump``. None: none are."""
    stop: bool
    """Whether the run ends at the first of these frames."""


class Files(NamedTuple):
    """What `write_input` has written."""

    input: Path
    data: Path


def write_input(prefix: Path, atoms: Atoms, model_file: Path, plugin: Path, run: Run, *, members: int) -> Files:
    """Write ``PREFIX.data`` and ``PREFIX.in``.

    Parameters
    ----------
    prefix
        Path without a suffix.
    atoms
        The structure; one that is not periodic is put into a box with `VACUUM` on each side.
    model_file
        What `write_model_file` wrote.
    plugin
        The compiled pair style.
    run
        Temperature, time step and length, and what the uncertainty does.
    members
        Networks of the ensemble in `model_file`: from two on the input records their deviation.

    Returns
    -------
    Files
        What was written.

    Raises
    ------
    ExportError
        There are no atoms.
    """
    if not len(atoms):
        raise ExportError("the structure has no atoms")
    boxed = atoms.copy()
    if not boxed.pbc.any():  # LAMMPS loses atoms of a tilted box that is shrink-wrapped
        boxed.cell[:] = 0.0
        boxed.center(vacuum=VACUUM)
    species = list(dict.fromkeys(boxed.get_chemical_symbols()))
    data, text = Path(f"{prefix}.data"), Path(f"{prefix}.in")
    data.parent.mkdir(parents=True, exist_ok=True)
    write(data, boxed, format="lammps-data", specorder=species, masses=True, units="metal", atom_style="atomic")
    atomic_write(text, "\n".join(_lines(boxed, species, data, model_file, plugin, run, members)) + "\n")
    return Files(text, data)


def _lines(
    atoms: Atoms,
    species: list[str],
    data: Path,
    model_file: Path,
    plugin: Path,
    run: Run,
    members: int,
) -> list[str]:
    name = data.with_suffix("")
    lines = [
        f"# {atoms.get_chemical_formula()} with {model_file.name}; run it with: lmp -in {name}.in",
        "units metal",
        f"boundary {' '.join('p' if periodic else 'm' for periodic in atoms.pbc)}",
        "atom_style atomic",
        "newton on",
        "",
        f"plugin load {plugin}",
        f"read_data {data}",
        "pair_style schnet",
        f"pair_coeff * * {model_file} {' '.join(species)}",
        "",
        "neighbor 1.0 bin",
        "neigh_modify every 1 delay 0 check yes",
        f"timestep {run.timestep / 1000.0:g}  # ps",
        f"velocity all create {2.0 * run.temperature:g} 1 mom yes rot yes  # half of it becomes potential energy",
        "fix move all nve",
        "",
    ]
    columns = "step temp pe ke etotal press"
    if members > 1:
        lines += [
            "# How far the members disagree on each atom's force, eV/Angstrom, every 10 steps, and the largest of it.",
            "fix deviation all pair 10 schnet deviation 1",
            "compute largest all reduce max f_deviation",
            "variable largest equal c_largest",
        ]
        columns += " v_largest"
        if run.threshold is not None:
            lines += [
                "# Frames above the threshold of the calibration, for a reference method.",
                f'variable certain equal "v_largest <= {run.threshold:.6g}"',
                f"dump flagged all custom 10 {name}.flagged.dump id type element x y z",
                f"dump_modify flagged sort id element {' '.join(species)} skip v_certain format float %.10g",
            ]
            if run.stop:
                lines += [f"fix stop all halt 10 v_largest > {run.threshold:.6g} error soft message yes"]
    return [
        *lines,
        f"thermo_style custom {columns}",
        "thermo 100",
        f"dump frames all custom 100 {name}.dump id type element x y z vx vy vz",
        f"dump_modify frames sort id element {' '.join(species)}",
        f"restart 1000 {name}.restart.1 {name}.restart.2",
        f"run {run.steps}",
        f"write_data {name}.end.data",
    ]
