#!/usr/bin/env bash
# Versions: ASE 3.29.0, netCDF4 1.7.5.1.post1.
# Guess: what `NetCDFTrajectory` writes it reads as the same crystal, up to a rotation of the whole.
# Seen: the file holds lengths and angles of the cell and the positions as they are. A cell whose first vector is not along x,
#   such as the primitive one that `bulk("Cu")` makes, is read in another orientation than its atoms: another structure.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0 netCDF4==1.7.5.1.post1

"$venv/bin/python" -W ignore - "$venv/copper.nc" <<'PYTHON'
import sys

from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io.netcdftrajectory import NetCDFTrajectory


def energy(atoms):
    atoms.calc = EMT()
    return atoms.get_potential_energy() / len(atoms)


changes = {}
for name, atoms in (("cubic", bulk("Cu", cubic=True) * 2), ("primitive", bulk("Cu") * 3)):
    with NetCDFTrajectory(sys.argv[1], "w") as file:
        file.write(atoms)
    with NetCDFTrajectory(sys.argv[1]) as file:
        again = file[0]
    before, after = energy(atoms), energy(again)
    changes[name] = after - before
    print(f"{name} cell: first vector {atoms.cell[0]}, read as {again.cell[0]}")
    print(f"  {before:.3f} eV per atom before, {after:.3f} after")
sys.exit(not (abs(changes["cubic"]) < 1e-3 and changes["primitive"] > 1))
PYTHON
