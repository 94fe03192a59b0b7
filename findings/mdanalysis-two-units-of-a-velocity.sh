#!/usr/bin/env bash
# Versions: MDAnalysis 2.11.0.
# Guess: MDAnalysis has velocities in Å/ps and forces in kJ/(mol Å) whatever file they come from, and takes files of LAMMPS to
#   be in the units `real`, Å/fs and kcal/(mol Å), unless told otherwise.
# Seen: that holds for the velocities of LAMMPS's data file. Those of a dump stay in Å/fs and its forces in kcal/(mol Å), so
#   that the same atoms are 1,000 times slower when they come from the dump; `convert_units=True` changes nothing.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check MDAnalysis==2.11.0

cd "$venv"
bin/python -W ignore - <<'PYTHON'
import sys

import MDAnalysis

with open("a.data", "w") as file:
    file.write("""one carbon atom, units real

1 atoms
1 atom types

0 10 xlo xhi
0 10 ylo yhi
0 10 zlo zhi

Masses

1 12.011

Atoms # atomic

1 1 1.0 2.0 3.0

Velocities

1 0.005 0.0 0.0
""")
with open("a.lammpstrj", "w") as file:
    file.write("""ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
1
ITEM: BOX BOUNDS pp pp pp
0 10
0 10
0 10
ITEM: ATOMS id type x y z vx vy vz fx fy fz
1 1 1.0 2.0 3.0 0.005 0.0 0.0 1.0 0.0 0.0
""")
data = MDAnalysis.Universe("a.data", atom_style="id type x y z").atoms
dump = MDAnalysis.Universe("a.lammpstrj", format="LAMMPSDUMP", convert_units=True).atoms
print("velocity in both files: 0.005 Å/fs, which is 5 Å/ps")
print(f"from the data file {data.velocities[0, 0]:.3f}, from the dump {dump.velocities[0, 0]:.3f}")
print(f"force of 1 kcal/(mol Å), which is 4.184 kJ/(mol Å): from the dump {dump.forces[0, 0]:.3f}")
near = [abs(a - b) < 1e-5 for a, b in ((data.velocities[0, 0], 5), (dump.velocities[0, 0], 0.005), (dump.forces[0, 0], 1))]
sys.exit(not all(near))
PYTHON
