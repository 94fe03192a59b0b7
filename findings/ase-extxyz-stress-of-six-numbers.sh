#!/usr/bin/env bash
# ASE 3.29.0. The guess: a stress in the header of an extxyz frame may have six numbers, in the order xx, yy, zz, yz, xz, xy
# that ASE's get_stress() returns. Seen: ase.io.read refuses the whole file with a ValueError, since `stress` and `virial`
# must have nine; under any other key, such as REF_stress, six numbers are read.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ase==3.29.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import ase.io

head = '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3 pbc="T T T" {}="1 2 3 4 5 6"\nCu 0 0 0\n'
open("own.extxyz", "w").write(head.format("REF_stress"))
open("ase.extxyz", "w").write(head.format("stress"))
print("REF_stress:", ase.io.read("own.extxyz").info["REF_stress"])
try:
    print("stress:", ase.io.read("ase.extxyz").get_stress())
except ValueError as error:
    print("stress:", error)
    sys.exit(0)
sys.exit("six numbers are read now")
PYTHON
