#!/usr/bin/env bash
# Versions: dpdata 1.1.0, ASE 3.29.0.
# Guess: a slab, `pbc = (True, True, False)`, is still one after ASE's atoms have been through dpdata, or it is refused.
# Seen: dpdata knows only systems with and without periodicity, and what is periodic in one direction counts as periodic in
#   all: a slab and a wire come back as crystals, without a word.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check dpdata==1.1.0 ase==3.29.0

"$venv/bin/python" -W ignore - <<'PYTHON'
import sys

import dpdata
import numpy as np
from ase.build import fcc111
from ase.calculators.singlepoint import SinglePointCalculator

read = {}
for pbc in ((False, False, False), (False, False, True), (True, True, False)):
    atoms = fcc111("Cu", (1, 1, 2), vacuum=5.0)
    atoms.pbc = pbc
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.ones((2, 3)))
    read[pbc] = tuple(dpdata.LabeledSystem(atoms, fmt="ase/structure").to("ase/structure")[0].pbc.tolist())
    print(pbc, "becomes", read[pbc])
sys.exit(not all(all(after) == any(before) and any(after) == any(before) for before, after in read.items()))
PYTHON
