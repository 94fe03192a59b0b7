#!/usr/bin/env bash
# ASE 3.29.0.
#
# Guess: frames of a LAMMPS dump with forces (dump custom ... id element x y z fx fy fz) have forces and no energy, since a
# dump holds none.
# Seen: get_potential_energy() of each is 0.0, so that the frames pass for frames with labels.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "ase==3.29.0"
cd "$folder"
cat >dump <<'END'
ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
2
ITEM: BOX BOUNDS pp pp pp
0 10
0 10
0 10
ITEM: ATOMS id element x y z fx fy fz
1 O 1 1 1 0.5 0 0
2 O 2 1 1 -0.5 0 0
END
"$folder/venv/bin/python" - <<'END'
from ase.io import read

atoms = read("dump", format="lammps-dump-text")
print("forces", atoms.get_forces().tolist(), "energy", atoms.get_potential_energy())
assert atoms.get_potential_energy() == 0.0
END
