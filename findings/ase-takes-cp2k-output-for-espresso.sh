#!/usr/bin/env bash
# ASE 3.29.0. The guess: ase.io.iread of an output of CP2K, cp2k.out, either reads it or says that it cannot. Seen: by its
# suffix the file is taken for one of Quantum ESPRESSO, nothing is found in it, and an empty list comes back without a word.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ase==3.29.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import ase.io
from ase.io.formats import filetype

with open("cp2k.out", "w") as file:
    file.write(" CP2K| version string:                 CP2K version 2022.2\n")
    file.write(" ENERGY| Total FORCE_EVAL ( QS ) energy [a.u.]:      -17.155100000000001\n")
    file.write("\n ATOMIC FORCES in [a.u.]\n")
frames = list(ase.io.iread("cp2k.out", ":"))
print("taken for", filetype("cp2k.out"), "with", len(frames), "frames and no error")
sys.exit(0 if frames == [] else "it is read, or refused, now")
PYTHON
