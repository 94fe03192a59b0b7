#!/usr/bin/env bash
# Versions: dftd3 1.7.0, ASE 3.29.0.
# Guess: with `periodic = (True, True, False)` the third lattice vector has no meaning, as in ASE; it may have any length or none.
# Seen: atoms are wrapped into the cell along it all the same. A slab with atoms on both sides of z = 0 is torn apart, and its
#   energy depends on the length of the vector; where that is zero the energy is not a number, without an error.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0 dftd3==1.7.0

"$venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from ase.build import molecule
from dftd3.ase import DFTD3


def energy(height, lift):
    atoms = molecule("CH3CH2OH")
    atoms.positions[:, 2] += lift - atoms.positions[:, 2].min()
    atoms.set_cell([[4.0, 0, 0], [0, 5.0, 0], [0, 0, height]])
    atoms.pbc = (True, True, False)
    atoms.calc = DFTD3(method="pbe", damping="d3bj")
    return atoms.get_potential_energy()


inside = [energy(height, lift=0.1) for height in (6.0, 60.0)]
across = [energy(height, lift=-0.8) for height in (6.0, 60.0)]
without = energy(0.0, lift=0.1)
print("all atoms above zero, heights of 6 and 60 Å:", inside)
print("atoms on both sides of zero, the same heights:", across)
print("no third vector:", without)
torn = abs(across[0] - across[1]) > 1e-3 and abs(inside[0] - inside[1]) < 1e-6
sys.exit(not (torn and np.isnan(without)))
PYTHON
