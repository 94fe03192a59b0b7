#!/usr/bin/env bash
# Versions: znh5md 0.4.8, ASE 3.29.0.
# Guess: H5MD states the unit of each quantity, so that any reader gets the velocities that ASE's atoms had, and znh5md reads
#   positions that are stated in nanometres as such.
# Seen: velocities are in ASE's own unit beneath the statement `Angstrom/fs`, which makes them 10.18 times too large; and in
#   reading, units are not looked at: 0.1 nm is 0.1 Å.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check znh5md==0.4.8 ase==3.29.0

"$venv/bin/python" -W ignore - "$venv/water.h5" <<'PYTHON'
import sys

import h5py
import numpy as np
import znh5md
from ase import units
from ase.build import molecule

water = molecule("H2O")
water.set_velocities(np.full((3, 3), 0.01 / units.fs))  # 0.01 Å/fs
znh5md.IO(sys.argv[1]).append(water)

with h5py.File(sys.argv[1], "r+") as file:
    velocity = file["particles/atoms/velocity/value"]
    stated, stored = velocity.attrs["unit"], velocity[0, 0, 0]
    print(f"0.01 Å/fs is stored as {stored:.5f} {stated}")
    position = file["particles/atoms/position/value"]
    position[...] = position[...] / 10
    position.attrs["unit"] = "nm"
    edges = file["particles/atoms/box/edges/value"]
    edges[...] = edges[...] / 10
    edges.attrs["unit"] = "nm"
bond = znh5md.IO(sys.argv[1])[0].get_distance(0, 1)
print(f"O–H of {water.get_distance(0, 1):.4f} Å; after the file was put into nm, read as {bond:.4f} Å")
sys.exit(not (stated == "Angstrom/fs" and abs(stored - 0.1018) < 1e-4 and abs(bond - 0.0969) < 1e-4))
PYTHON
