#!/usr/bin/env bash
# ASE 3.29.0. The guess: labels in atoms.info and atoms.arrays (REF_energy, REF_forces, as MACE's users have them) survive
# a conversion from extxyz to ASE's other formats. Seen: .traj keeps info and drops the arrays, .db and .json drop both,
# without a word: a set loses its forces, or all of its labels.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ase==3.29.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import ase.io
import numpy as np
from ase.build import molecule

atoms = molecule("H2O")
atoms.info["REF_energy"], atoms.arrays["REF_forces"] = -3.0, np.ones((3, 3))
kept = {}
for name in ("a.extxyz", "a.traj", "a.db", "a.json"):
    ase.io.write(name, atoms)
    read = ase.io.read(name)
    kept[name] = ("REF_energy" in read.info, "REF_forces" in read.arrays)
    print(f"{name}: energy in info {kept[name][0]}, forces in arrays {kept[name][1]}")
expected = {"a.extxyz": (True, True), "a.traj": (True, False), "a.db": (False, False), "a.json": (False, False)}
sys.exit(0 if kept == expected else "what is kept has changed")
PYTHON
