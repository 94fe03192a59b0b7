#!/usr/bin/env bash
# Versions: i-PI 3.3.1, ASE 3.29.0.
# Guess: a trajectory of bead centroids in `format='ase'` is an extxyz file whose atoms are at the centroids.
# Seen: only the quantity `positions` becomes positions. Others are arrays beside positions of zero, and `forces{ev/ang}`
#   ends in a TypeError, since the unit's slash is not expected.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check ipi==3.3.1 ase==3.29.0

cd "$venv"
bin/python - <<'PYTHON'
import sys

import ase.io
import numpy as np
from ipi.engine.atoms import Atoms
from ipi.engine.cell import Cell
from ipi.utils.io.backends.io_ase import print_ase

atoms, cell = Atoms(2), Cell()
atoms.names[:] = ["O", "H"]
atoms.q[:] = np.arange(1.0, 7.0)
cell.h[:] = 10.0 * np.eye(3)


def written(quantity):
    with open("frame.extxyz", "w") as file:
        print_ase(atoms, cell, file, f"Step: 0  Bead: 0 {quantity}  cell{{angstrom}}")
    return ase.io.read("frame.extxyz")


zero = not written("x_centroid{angstrom}").positions.any()
print("positions in a trajectory of x_centroid are zero:", zero)
try:
    written("forces{ev/ang}")
    raised = False
except TypeError as error:
    print("forces{ev/ang}:", error)
    raised = True
sys.exit(not (zero and raised and written("positions{angstrom}").positions.any()))
PYTHON
