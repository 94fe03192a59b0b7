#!/usr/bin/env bash
# Versions: tblite 0.8.0, ASE 3.29.0.
# Guess: initial charges of 1/3 on three atoms are a charge of 1 after a round trip through extxyz too; 1e-8 electrons change
#   an energy by 1e-7 eV.
# Seen: extxyz writes 0.33333333, the sum is 0.99999999, and the energy of the water cation is 7.4 eV higher: another number
#   of electrons of each spin is occupied.
set -euo pipefail

venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check tblite==0.8.0 ase==3.29.0

"$venv/bin/python" -W ignore - <<'PYTHON'
import io
import sys

from ase.build import molecule
from ase.io import read, write
from tblite.ase import TBLite


def energy(atoms):
    atoms.calc = TBLite(verbosity=0)
    return atoms.get_potential_energy()


water = molecule("H2O")
water.set_initial_charges([1 / 3, 1 / 3, 1 / 3])
text = io.StringIO()
write(text, water, format="extxyz")
text.seek(0)
again = read(text, format="extxyz")
energies = []
for name, atoms in (("before", water), ("after", again)):
    energies.append(energy(atoms))
    print(f"{name} extxyz: charge {atoms.get_initial_charges().sum():.10f}, {energies[-1]:.4f} eV")
sys.exit(not energies[1] - energies[0] > 7)
PYTHON
