#!/usr/bin/env bash
# Versions: mdtraj 1.11.1.post2.
# Guess: a dump of LAMMPS's style `atom`, whose columns are the scaled positions xs, ys, zs, is read as positions: mdtraj
#   knows the names of these columns and the box.
# Seen: the fractions of the box are taken for Å. All atoms lie within 1 Å, beside a box of the right size, without a warning.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check mdtraj==1.11.1.post2

cd "$venv"
bin/python -W ignore - <<'PYTHON'
import sys

import mdtraj
import numpy as np

topology = mdtraj.Topology()
residue = topology.add_residue("CO", topology.add_chain())
for element in (mdtraj.element.carbon, mdtraj.element.oxygen):
    topology.add_atom(element.symbol, element, residue)

HEAD = "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS pp pp pp\n" + 3 * "0 20\n" + "ITEM: ATOMS id type "
positions = np.array([[5.0, 10.0, 15.0], [6.13, 10.0, 15.0]])  # Å
bonds = {}
for columns, rows in (("x y z", positions), ("xs ys zs", positions / 20)):
    lines = (f"{i + 1} {i + 1} " + " ".join(f"{x:.6f}" for x in row) + "\n" for i, row in enumerate(rows))
    with open("a.lammpstrj", "w") as file:
        file.write(HEAD + columns + "\n" + "".join(lines))
    frame = mdtraj.load("a.lammpstrj", top=topology)
    bonds[columns] = 10 * mdtraj.compute_distances(frame, [[0, 1]])[0, 0]
    print(f"{columns}: bond {bonds[columns]:.4f} Å in a box of {10 * frame.unitcell_lengths[0, 0]:.1f} Å")
sys.exit(not (abs(bonds["x y z"] - 1.13) < 1e-4 and abs(bonds["xs ys zs"] - 0.0565) < 1e-4))
PYTHON
