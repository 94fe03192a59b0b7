#!/usr/bin/env bash
# Versions: chemfiles 0.10.4, ASE 3.29.0.
# Guess: the cell of a tilted box in a LAMMPS dump is that of the run. `BOX BOUNDS xy xz yz` states the bounds of the box that
#   encloses the tilted one, and a reader takes the tilt off them.
# Seen: chemfiles takes the enclosing box for the lengths: an edge of 12 Å is one of 17 Å. Scaled positions are multiplied by
#   that cell, so that the distances between atoms are wrong, too. Its reader of LAMMPS's data files is right.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check chemfiles==0.10.4 ase==3.29.0

cd "$venv"
bin/python -W ignore - <<'PYTHON'
import sys

import chemfiles
import numpy as np
from ase.cell import Cell
from ase.io import read

cell = Cell([[12, 0, 0], [3, 14, 0], [-2, 4, 16]])
scaled = np.array([[0.1, 0.2, 0.3], [0.2, 0.3, 0.3]])
HEAD = """ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
2
ITEM: BOX BOUNDS xy xz yz pp pp pp
-2 15 3
0 18 -2
0 16 4
ITEM: ATOMS id type element """
distance = np.linalg.norm(cell.cartesian_positions(scaled[1] - scaled[0]))
print(f"the run: edges {cell.lengths().round(3)} Å, atoms {distance:.3f} Å apart")

wrong = 0
for columns, positions in (("x y z", cell.cartesian_positions(scaled)), ("xs ys zs", scaled)):
    rows = (f"{i + 1} 1 C " + " ".join(f"{x:.6f}" for x in row) + "\n" for i, row in enumerate(positions))
    with open("a.lammpstrj", "w") as file:
        file.write(HEAD + columns + "\n" + "".join(rows))
    atoms = read("a.lammpstrj", format="lammps-dump-text")
    frame = chemfiles.Trajectory("a.lammpstrj").read()
    apart = np.linalg.norm(frame.positions[1] - frame.positions[0])
    print(f"{columns}: ASE {atoms.cell.lengths().round(3)}, {atoms.get_distance(0, 1):.3f} Å", end="; ")
    print(f"chemfiles {np.round(frame.cell.lengths, 3)}, {apart:.3f} Å")
    wrong += abs(frame.cell.lengths[0] - 17) < 1e-6 and np.allclose(atoms.cell, cell)
sys.exit(not (wrong == 2 and abs(apart - distance) > 0.1))
PYTHON
